"""GGUF files with random weights: models of the architecture `llama`, and LoRA adapters to them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from gguf import GGMLQuantizationType, GGUFWriter, LlamaFileType
from gguf.quants import quantize

if TYPE_CHECKING:
    from edge_pretrain.model import AnchorConfig

GROUP = 32  # of values along a row that share a scale in Q8_0
FILE_TYPES = {
    "F32": LlamaFileType.ALL_F32,
    "Q4_0": LlamaFileType.MOSTLY_Q4_0,
    "Q8_0": LlamaFileType.MOSTLY_Q8_0,
}
Weights = Callable[[str, tuple[int, ...]], npt.NDArray[np.float32]]
"""Of a tensor's name and shape."""


def _matrices(config: AnchorConfig) -> dict[str, tuple[int, int]]:
    """[out, in] of a layer's products."""
    d, inner, ffn = config.d_model, config.heads * config.head_dim, config.ffn_dim
    return {
        "attn_q": (inner, d), "attn_k": (inner, d), "attn_v": (inner, d), "attn_output": (d, inner),
        "ffn_gate": (ffn, d), "ffn_up": (ffn, d), "ffn_down": (d, ffn),
    }  # fmt: skip


def _tensors(config: AnchorConfig) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield "token_embd.weight", (config.vocab_size, config.d_model)
    for layer in range(config.layers):
        for name in ("attn_norm", "ffn_norm"):
            yield f"blk.{layer}.{name}.weight", (config.d_model,)
        for name, shape in _matrices(config).items():
            yield f"blk.{layer}.{name}.weight", shape
    yield "output_norm.weight", (config.d_model,)
    if not config.tied_embeddings:
        yield "output.weight", (config.vocab_size, config.d_model)


def _random(random: np.random.Generator, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    """Of a size that keeps a stream's."""
    values = random.standard_normal(shape, np.float32)
    values *= np.float32(shape[-1] ** -0.5)
    return values


def random_weights(seed: int) -> Weights:
    """Norms are gains of one."""
    random = np.random.default_rng(seed)
    return lambda _, shape: np.ones(shape, np.float32) if len(shape) == 1 else _random(random, shape)


def _finish(writer: GGUFWriter) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_model(path: Path, config: AnchorConfig, dtype: str, weights: Weights) -> None:
    """dtype: one of FILE_TYPES, of all matrices, the embedding and head included."""
    writer = GGUFWriter(path, "llama")
    writer.add_context_length(config.context_length)
    writer.add_embedding_length(config.d_model)
    writer.add_block_count(config.layers)
    writer.add_feed_forward_length(config.ffn_dim)
    writer.add_head_count(config.heads)
    writer.add_head_count_kv(config.heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_theta)
    writer.add_layer_norm_rms_eps(config.norm_eps)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("none")  # tokens go in and out by number
    writer.add_file_type(FILE_TYPES[dtype])
    kind = GGMLQuantizationType[dtype]
    for name, shape in _tensors(config):
        values = weights(name, shape)
        if len(shape) == 1:
            writer.add_tensor(name, values)
        else:
            writer.add_tensor(name, quantize(values, kind), raw_dtype=kind)
    _finish(writer)


def ffn_products(config: AnchorConfig) -> list[tuple[int, int]]:
    """(in, out) of all layers."""
    one = [(into, out) for name, (out, into) in _matrices(config).items() if name.startswith("ffn")]
    return one * config.layers


def write_lora(path: Path, config: AnchorConfig, rank: int, seed: int) -> None:
    """An adapter in Q8_0: a byte a parameter, as our int8 memory."""
    writer, random = GGUFWriter(path, "llama"), np.random.default_rng(seed)
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", float(rank))
    kind = GGMLQuantizationType.Q8_0
    for layer in range(config.layers):
        for name, (out, into) in _matrices(config).items():
            if name.startswith("ffn"):
                for part, shape in (("a", (rank, into)), ("b", (out, rank))):
                    tensor = f"blk.{layer}.{name}.weight.lora_{part}"
                    writer.add_tensor(tensor, quantize(_random(random, shape), kind), raw_dtype=kind)
    _finish(writer)
