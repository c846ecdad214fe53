"""Writes anchor.native.safetensors (docs/native-format.md) out of an anchor's weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch

from edge_pretrain.model import Anchor, Block
from edge_runtime import _core

PATH = "anchor.native.safetensors"
# Values that are quantised at once: a head of a large vocabulary would be a second copy of itself.
CHUNK = 1 << 22


def write_native(anchor: Anchor, dtype: str, path: Path) -> None:
    """dtype: of the matrices, f32, f16, bf16, i8 or i4. InvalidArgumentError where a value does not fit it."""
    writer = _core.NativeWriter(str(path), json.dumps(anchor.config.to_manifest()), dtype)
    weights = native_weights(anchor)
    for name, shape in writer.tensors:
        rows = weights[name]().reshape(-1, shape[-1])
        step = max(1, CHUNK // shape[-1])
        for start in range(0, len(rows), step):
            writer.append(rows[start : start + step])
    writer.finish()


def native_weights(anchor: Anchor) -> dict[str, Callable[[], npt.NDArray[np.float32]]]:
    """What the file's tensors hold, each made when it is its turn."""
    weights: dict[str, Callable[[], npt.NDArray[np.float32]]] = {
        "embedding": lambda: _array(anchor.tok_embeddings.weight),
        "norm": lambda: _array(anchor.norm.weight),
        "head": lambda: _array(anchor.output_weight),
    }
    for index, module in enumerate(anchor.layers):
        for name, make in _layer(cast(Block, module)).items():
            weights[f"layers.{index}.{name}"] = make
    return weights


def _layer(block: Block) -> dict[str, Callable[[], npt.NDArray[np.float32]]]:
    attention, ffn = block.attention, block.feed_forward
    return {
        "attention_norm": lambda: _array(block.attention_norm.weight),
        "qkv": lambda: _array(torch.cat([attention.wq.weight, attention.wk.weight, attention.wv.weight])),
        "q_norm": lambda: _array(attention.q_norm.weight),
        "k_norm": lambda: _array(attention.k_norm.weight),
        "attention_out": lambda: _array(attention.wo.weight),
        "ffn_norm": lambda: _array(block.ffn_norm.weight),
        # A row a neuron, as in a block of memory: W3 is stored along its output.
        "ffn": lambda: _array(torch.stack([ffn.w1.weight, ffn.w2.weight, ffn.w3.weight.T])),
    }


def _array(weight: torch.Tensor) -> npt.NDArray[np.float32]:
    return cast(npt.NDArray[np.float32], np.ascontiguousarray(cast(Any, weight.detach().float().numpy())))
