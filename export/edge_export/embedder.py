"""The router's sentence encoder as a program (docs/bundle-format.md, Programs)."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.export import Dim

from edge_export.executorch import lower
from edge_export.onnx import write_onnx
from edge_pretrain.embed import MAX_TOKENS, MiniLM

INT8_MAX = 127


class SentenceEncoder(nn.Module):
    """BERT with mean pooling, L2-normalised: what `MiniLM.embed` computes for one window."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.embeddings, self.layers = model.embeddings, model.encoder.layer

    def forward(self, token_ids: Tensor, mask: Tensor) -> Tensor:
        """f32 [1, dim]. token_ids: i64 [1, T] with [CLS] and [SEP]; mask: i64 [1, T], 0 at filled positions."""
        hidden = self.embeddings(input_ids=token_ids)
        weight = mask.to(hidden.dtype)
        # Added to the attention scores: a filled position gets no weight.
        bias = ((1.0 - weight) * torch.finfo(hidden.dtype).min)[:, None, None, :]
        for layer in self.layers:
            hidden = layer(hidden, bias)
            hidden = hidden[0] if isinstance(hidden, tuple) else hidden
        pooled = (hidden * weight[..., None]).sum(1) / weight.sum(1, keepdim=True)
        return cast(Tensor, pooled / pooled.square().sum(1, keepdim=True).sqrt())


class Int8Embedding(nn.Module):
    """An embedding table of int8 rows with a scale each: half of the encoder's f32 bytes are word embeddings."""

    rows: Tensor
    scales: Tensor

    def __init__(self, table: Tensor) -> None:
        super().__init__()
        scales = (table.abs().amax(1, keepdim=True) / INT8_MAX).clamp(min=torch.finfo(table.dtype).tiny)
        self.register_buffer("rows", (table / scales).round().to(torch.int8))
        self.register_buffer("scales", scales)

    def forward(self, ids: Tensor) -> Tensor:
        return F.embedding(ids, self.rows).to(self.scales.dtype) * F.embedding(ids, self.scales)


def quantized(encoder: SentenceEncoder) -> SentenceEncoder:
    """A copy with int8 weights: word embeddings a scale a row, linear layers a scale an output, and activations
    quantised as they come."""
    from torchao.quantization import Int8DynamicActivationIntxWeightConfig, quantize_
    from torchao.quantization.granularity import PerAxis

    smaller = copy.deepcopy(encoder)
    words = smaller.embeddings.word_embeddings
    smaller.embeddings.word_embeddings = Int8Embedding(words.weight.detach())
    quantize_(smaller, Int8DynamicActivationIntxWeightConfig(torch.int8, PerAxis(0)))
    return smaller


def export_embedder(minilm: MiniLM, int8: bool, path: Path) -> None:
    """Writes the encoder's ExecuTorch program to `path`, for 2 <= T <= MAX_TOKENS."""
    encoder = _encoder(minilm)
    lower(quantized(encoder) if int8 else encoder, *_examples(), path)


def export_onnx_embedder(minilm: MiniLM, int8: bool, path: Path) -> None:
    """Writes the encoder's ONNX program to `path`, for 2 <= T <= MAX_TOKENS."""
    whole = path.with_suffix(".f32.onnx") if int8 else path
    write_onnx(_encoder(minilm), *_examples(), (["token_ids", "mask"], ["sentence"]), whole)
    if not int8:
        return
    from onnxruntime.quantization import QuantType, quantize_dynamic

    # reduce_range: without VNNI, pairs of full int8 products overflow the 16 bits that AVX2 adds them in.
    quantize_dynamic(
        whole, path, ["MatMul", "Gather"], per_channel=True, reduce_range=True, weight_type=QuantType.QInt8
    )
    whole.unlink()


def _encoder(minilm: MiniLM) -> SentenceEncoder:
    # The eager attention is plain matrix products, which XNNPACK takes; transformers' fused one is not exportable
    # with a mask of dynamic length.
    minilm.model.set_attn_implementation("eager")
    return SentenceEncoder(minilm.model)


def _examples() -> tuple[tuple[Tensor, Tensor], tuple[Any, Any]]:
    """Inputs, and which of their axes vary."""
    tokens, length = torch.zeros(1, MAX_TOKENS // 2, dtype=torch.long), Dim("tokens", min=2, max=MAX_TOKENS)
    return (tokens, torch.ones_like(tokens)), ({1: length}, {1: length})
