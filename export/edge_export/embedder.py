"""The router's sentence encoder as a program (docs/bundle-format.md, Programs)."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.export import Dim

from edge_export.executorch import lower
from edge_pretrain.embed import MAX_TOKENS, MiniLM


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


def export_embedder(minilm: MiniLM, path: Path) -> None:
    """Writes the encoder's program to `path`, for 2 <= T <= MAX_TOKENS."""
    # The eager attention is plain matrix products, which XNNPACK takes; transformers' fused one is not exportable
    # with a mask of dynamic length.
    minilm.model.set_attn_implementation("eager")
    tokens = torch.zeros(1, MAX_TOKENS // 2, dtype=torch.long)
    length = Dim("tokens", min=2, max=MAX_TOKENS)
    lower(SentenceEncoder(minilm.model), (tokens, torch.ones_like(tokens)), ({1: length}, {1: length}), path)
