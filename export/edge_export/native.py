"""Writes anchor.native.safetensors (docs/native-format.md) out of an anchor's weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from edge_export.model import Block, Decoder
from edge_runtime import _core

PATH = "anchor.native.safetensors"
# Values that are quantised at once: a head of a large vocabulary would be a second copy of itself.
CHUNK = 1 << 22


def write_native(decoder: Decoder, anchor: dict[str, Any], dtype: str, path: Path) -> None:
    """anchor: the manifest's object. dtype: of the matrices, f32, f16, bf16, i8 or i4.

    Raises:
        UnsupportedError: an option of the anchor that the native engine lacks.
        InvalidArgumentError: a value does not fit the dtype.
    """
    writer = _core.NativeWriter(str(path), json.dumps(anchor), dtype)
    weights = native_weights(decoder)
    for name, shape in writer.tensors:
        rows = weights[name]().reshape(-1, shape[-1])
        step = max(1, CHUNK // shape[-1])
        for start in range(0, len(rows), step):
            writer.append(rows[start : start + step])
    writer.finish()


def native_weights(decoder: Decoder) -> dict[str, Callable[[], npt.NDArray[np.float32]]]:
    """What the file's tensors hold, each made when it is its turn."""
    weights: dict[str, Callable[[], npt.NDArray[np.float32]]] = {
        "embedding": lambda: _array(decoder.tok_embeddings.weight),
        "norm": lambda: _array(decoder.norm.weight),
        "head": lambda: _array(decoder.output.weight),
    }
    for index, module in enumerate(decoder.blocks):
        for name, make in _layer(cast(Block, module)).items():
            weights[f"layers.{index}.{name}"] = make
    return weights


def _layer(block: Block) -> dict[str, Callable[[], npt.NDArray[np.float32]]]:
    """All that a layer may have; which of them the anchor's options ask for, the writer knows."""
    attention, ffn = block.attention, block.feed_forward
    return {
        "attention_norm": lambda: _array(block.attention_norm.weight),
        "qkv": lambda: _array(attention.qkv.weight),
        "qkv_bias": lambda: _array(attention.qkv.bias),
        "q_norm": lambda: _array(attention.q_norm.weight),
        "k_norm": lambda: _array(attention.k_norm.weight),
        "attention_out": lambda: _array(attention.wo.weight),
        "attention_out_bias": lambda: _array(attention.wo.bias),
        "attention_post_norm": lambda: _array(block.attention_post_norm.weight),
        "ffn_norm": lambda: _array(block.ffn_norm.weight),
        "gate": lambda: _array(ffn.w12.weight.chunk(2)[0]),
        "gate_bias": lambda: _array(ffn.w12.bias.chunk(2)[0]),
        "up": lambda: _array(ffn.w12.weight.chunk(2)[1]),
        "up_bias": lambda: _array(ffn.w12.bias.chunk(2)[1]),
        "down": lambda: _array(ffn.w3.weight),
        "down_bias": lambda: _array(ffn.w3.bias),
        "ffn_post_norm": lambda: _array(block.ffn_post_norm.weight),
    }


def _array(weight: Any) -> npt.NDArray[np.float32]:
    return cast(npt.NDArray[np.float32], np.ascontiguousarray(cast(Any, weight.detach().float().numpy())))
