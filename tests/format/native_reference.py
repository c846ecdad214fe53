"""docs/native-format.md once more, in numpy: what the core's writer must equal. Written from the document."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from bank_reference import PAGE, Floats, pad, quantize

ROWS, COLUMNS, ALIGNMENT = 16, 32, 64  # of a packed block and group; of a tensor's place
STORED = {"f32": "F32", "f16": "F16", "bf16": "BF16", "i8": "I8", "i4": "U8"}
Part = tuple[str, str, Sequence[int], bytes]


def parts(name: str, values: Floats, dtype: str) -> list[Part]:
    """A tensor as the file has it: itself, and its scales behind it."""
    if values.ndim == 1:
        dtype = "f32"
    data, scales = quantize(dtype, np.atleast_2d(values))
    if dtype not in ("i8", "i4"):
        return [(name, STORED[dtype], values.shape, data)]
    rows, columns = values.shape
    width = columns if dtype == "i8" else columns // 2
    of_group = COLUMNS if dtype == "i8" else COLUMNS // 2
    blocks, groups = -(-rows // ROWS), -(-columns // COLUMNS)
    bytes_of_row = np.frombuffer(data, np.uint8).reshape(rows, width)
    filled = np.zeros((blocks * ROWS, groups * of_group), np.uint8)
    filled[:rows, :width] = bytes_of_row
    # [blocks, 16 rows, groups, words, 4] -> [blocks, groups, words, 16 rows, 4]
    words = filled.reshape(blocks, ROWS, groups, of_group // 4, 4).transpose(0, 2, 3, 1, 4)
    packed: Part = (name, STORED[dtype], words.shape, words.tobytes())
    if dtype == "i8":
        of_rows = _filled(np.frombuffer(scales, "<f4").reshape(rows, 1), blocks)[:, :, 0]
        return [packed, (f"{name}.scales", "F32", of_rows.shape, of_rows.tobytes())]
    of_groups = _filled(np.frombuffer(scales, "<f2").reshape(rows, groups), blocks).transpose(0, 2, 1)
    return [packed, (f"{name}.scales", "F16", of_groups.shape, of_groups.tobytes())]


def _filled(scales: npt.NDArray[Any], blocks: int) -> npt.NDArray[Any]:
    """[blocks, 16, ..]"""
    whole = np.zeros((blocks * ROWS, scales.shape[1]), scales.dtype)
    whole[: len(scales)] = scales
    return whole.reshape(blocks, ROWS, -1)


def native_bytes(tensors: Mapping[str, Floats], dtype: str) -> bytes:
    """anchor.native.safetensors of these tensors, in their order."""
    header: dict[str, Any] = {"__metadata__": {"format": "edge-runtime.native", "version": "2"}}
    data, paddings = b"", 0

    def put(name: str, kind: str, shape: Sequence[int], raw: bytes) -> None:
        nonlocal data
        offsets = [len(data), len(data) + len(raw)]
        header[name] = {"dtype": kind, "shape": list(shape), "data_offsets": offsets}
        data += raw

    for name, values in tensors.items():
        for part in parts(name, values, dtype):
            if over := -len(data) % ALIGNMENT:
                put(f"padding.{paddings}", "U8", [over], bytes(over))
                paddings += 1
            put(*part)
    text = json.dumps(header, separators=(",", ":")).encode()
    text = pad(bytes(8) + text, PAGE, b" ")[8:]
    return struct.pack("<Q", len(text)) + text + data
