"""docs/bank-format.md and the tree of docs/bundle-format.md once more, in numpy: what the core's writers must equal.

Written from the documents, not from the C++: a mistake would have to be made twice to go unseen.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import xxhash

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]

PAGE = 16384
DTYPES = ("f32", "f16", "bf16", "i8", "i4")
# Elements are q * scale; q of the largest magnitude of a row (i8) or group (i4).
LARGEST_Q = {"i8": 127, "i4": 7}


def pad(data: bytes, multiple: int, filler: bytes = b"\0") -> bytes:
    return data + filler * (-len(data) % multiple)


def quantize(dtype: str, rows: Floats) -> tuple[bytes, bytes]:
    """Matrix rows, f32 [rows, columns], as (elements, scales)."""
    if dtype == "f32":
        return rows.astype("<f4").tobytes(), b""
    if dtype == "f16":
        return rows.astype("<f2").tobytes(), b""
    if dtype == "bf16":
        bits = rows.view(np.uint32).astype(np.uint64)
        return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype("<u2").tobytes(), b""
    if dtype == "i8":
        scales = np.abs(rows).max(1, keepdims=True) / np.float32(127)
        q = np.rint(np.divide(rows, scales, out=np.zeros_like(rows), where=scales > 0))
        return q.clip(-127, 127).astype(np.int8).tobytes(), scales.astype("<f4").tobytes()
    groups = rows.reshape(-1, 32)
    halves = (np.abs(groups).max(1, keepdims=True) / np.float32(7)).astype("<f2")
    scales = halves.astype(np.float32)
    q = np.rint(np.divide(groups, scales, out=np.zeros_like(groups), where=scales > 0)).clip(-8, 7) + 8
    packed = q.astype(np.uint8)
    return (packed[:, :16] | packed[:, 16:] << 4).tobytes(), halves.tobytes()


def dequantize(dtype: str, data: bytes, scales: bytes, columns: int) -> Floats:
    """The inverse: f32 [rows, columns]."""
    if dtype in ("f32", "f16"):
        values = np.frombuffer(data, "<f4" if dtype == "f32" else "<f2").astype(np.float32)
    elif dtype == "bf16":
        values = np.frombuffer(b"".join(b"\0\0" + data[i : i + 2] for i in range(0, len(data), 2)), "<f4")
    elif dtype == "i8":
        values = np.frombuffer(data, np.int8).reshape(-1, columns) * np.frombuffer(scales, "<f4")[:, None]
    else:
        groups = np.frombuffer(data, np.uint8).reshape(-1, 16)
        q = np.concatenate([groups & 15, groups >> 4], 1).astype(np.float32) - 8
        values = q * np.frombuffer(scales, "<f2").astype(np.float32)[:, None]
    return np.asarray(values, np.float32).reshape(-1, columns)


@dataclass(frozen=True)
class LevelFile:
    """Blocks of FFN memory by node, f32 [layers, 3, r, d], in the order of their rows."""

    level: int
    fanout: int
    dtype: str
    anchor_layers: Sequence[int]
    blocks: Mapping[int, Floats]
    metadata: Mapping[str, str] = field(default_factory=dict)
    """Replaces or adds keys, for hostile files."""

    def block_bytes(self, block: Floats) -> tuple[bytes, list[int]]:
        """A block and its checksums, one a layer."""
        columns = block.shape[-1]
        parts = [quantize(self.dtype, np.ascontiguousarray(layer).reshape(-1, columns)) for layer in block]
        layers = [pad(data, 64) for data, _ in parts]
        plane = pad(b"".join(scales for _, scales in parts), 64)
        checksums = [
            xxhash.xxh3_64_intdigest(scales + layer) for (_, scales), layer in zip(parts, layers, strict=True)
        ]
        return pad(plane + b"".join(layers), PAGE), checksums

    def decoded(self, block: Floats) -> Floats:
        """The block's values as the dtype holds them."""
        columns = block.shape[-1]
        data, scales = quantize(self.dtype, np.ascontiguousarray(block).reshape(-1, columns))
        return dequantize(self.dtype, data, scales, columns).reshape(block.shape)

    def to_bytes(self) -> bytes:
        first = next(iter(self.blocks.values()))
        layers, _, r, d = first.shape
        per_row = {"i8": 4, "i4": d // 32 * 2}.get(self.dtype, 0)
        bits = {"f32": 32, "i8": 8, "i4": 4}.get(self.dtype, 16)
        encoded = [self.block_bytes(block) for block in self.blocks.values()]
        rows, stride = len(encoded), len(encoded[0][0])
        nodes = self.fanout**self.level
        row_of_node = [-1] * nodes
        for row, node in enumerate(self.blocks):
            row_of_node[node] = row
        ends = [
            rows * stride,
            rows * stride + rows * layers * 8,
            rows * stride + rows * layers * 8 + nodes * 4,
        ]
        compact: dict[str, Any] = {"separators": (",", ":")}
        header = {
            "__metadata__": {
                "format": "edge-runtime.bank",
                "version": "1",
                "kind": "ffn",
                "level": str(self.level),
                "fanout": str(self.fanout),
                "dtype": self.dtype,
                "d_model": str(d),
                "rows_per_block": str(r),
                "anchor_layers": json.dumps(list(self.anchor_layers), **compact),
                "tensors": json.dumps([[name, [r, d]] for name in ("w1", "w2", "w3")], **compact),
                "scale_bytes": str(-(-layers * 3 * r * per_row // 64) * 64),
                "layer_bytes": str(-(-3 * r * d * bits // 8 // 64) * 64),
                **self.metadata,
            },
            "blocks": {"dtype": "U8", "shape": [rows, stride], "data_offsets": [0, ends[0]]},
            "xxh3": {"dtype": "U64", "shape": [rows, layers], "data_offsets": ends[:2]},
            "row_of_node": {"dtype": "I32", "shape": [nodes], "data_offsets": ends[1:]},
        }
        text = json.dumps(header, **compact).encode()
        text += b" " * (-(8 + len(text)) % PAGE)
        tables = b"".join(struct.pack("<Q", c) for _, checksums in encoded for c in checksums)
        tables += struct.pack(f"<{nodes}i", *row_of_node)
        return struct.pack("<Q", len(text)) + text + b"".join(block for block, _ in encoded) + tables


def tree_bytes(fanout: int, centroids: Sequence[Floats], documents: Sequence[npt.NDArray[np.int32]]) -> bytes:
    """router/tree.safetensors."""
    header: dict[str, Any] = {
        "__metadata__": {
            "format": "edge-runtime.tree",
            "version": "1",
            "fanout": str(fanout),
            "depth": str(len(centroids)),
            "dim": str(centroids[0].shape[1]),
            "metric": "l2",
        }
    }
    data = b""
    for level, (vectors, counts) in enumerate(zip(centroids, documents, strict=True), 1):
        for name, dtype, array in (("centroids", "F32", vectors), ("documents", "I32", counts)):
            raw = array.astype(array.dtype.newbyteorder("<")).tobytes()
            offsets = [len(data), len(data) + len(raw)]
            header[f"{name}.{level}"] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": offsets}
            data += raw
    text = pad(json.dumps(header, separators=(",", ":")).encode(), 8, b" ")
    return struct.pack("<Q", len(text)) + text + data
