"""Reads level files (docs/bank-format.md) with the stock safetensors library, to inspect and verify them.

The pager's own reader is the C++ one; both read the same golden files.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_runtime.bank_header import ELEMENT_BITS, I4_GROUP, check_frame, is_cut_short, read_header, shown
from edge_runtime.errors import (
    BadFormatError,
    ChecksumError,
    InvalidArgumentError,
    NotFoundError,
    TruncatedError,
)

# What the safetensors library says of files that are cut short, and of those with bytes too many.
WRONG_SIZE = "not fully covered"
# The bits of infinity: those of floats that are neither negative nor infinite nor NaN are below them.
SCALE_BITS: dict[str, tuple[type[np.unsignedinteger[Any]], int]] = {
    "i8": (np.uint32, 0x7F800000),
    "i4": (np.uint16, 0x7C00),
}


class LevelReader:
    """One level file. Opening raises NotFoundError, TruncatedError, BadFormatError or UnsupportedError."""

    def __init__(self, path: str | Path) -> None:
        # Here and not above, as below: a process that answers imports this module and reads no level with it.
        from safetensors import SafetensorError, safe_open

        self.path = Path(path)
        if not self.path.is_file():
            raise NotFoundError(f"{self.path}: no such file")
        check_frame(self.path)
        try:
            with safe_open(self.path, framework="numpy") as file:
                self.spec, self.data_start = read_header(self.path)
                self._xxh3: npt.NDArray[np.uint64] = file.get_tensor("xxh3")
                self._row_of_node: npt.NDArray[np.int32] = file.get_tensor("row_of_node")
        except (SafetensorError, OSError) as error:
            short = WRONG_SIZE in str(error) and is_cut_short(self.path)
            kind = TruncatedError if short else BadFormatError
            raise kind(f"{self.path}: not a whole safetensors file ({shown(error)}): copy it again") from None
        named = np.sort(self._row_of_node[self._row_of_node != -1])
        if not np.array_equal(named, np.arange(self.spec.rows)):
            raise BadFormatError(f"{self.path}: row_of_node does not name each row exactly once")
        self._blocks: npt.NDArray[np.uint8] = (
            np.memmap(self.path, np.uint8, "r", self.data_start, (self.spec.rows, self.spec.stride))
            if self.spec.rows
            else np.zeros((0, self.spec.stride), np.uint8)
        )

    def row_of(self, node: int) -> int:
        """The row that holds the node's block, -1 if the file has none."""
        if not 0 <= node < self.spec.nodes:
            raise InvalidArgumentError(
                f"{self.path}: level {self.spec.level} has nodes 0..{self.spec.nodes - 1}, not {node}"
            )
        return int(self._row_of_node[node])

    def nodes(self) -> npt.NDArray[np.int64]:
        """The nodes that have a block, ascending."""
        return np.flatnonzero(self._row_of_node != -1)

    def block_bytes(self, node: int) -> npt.NDArray[np.uint8]:
        """The raw block, u8 [stride], verified. NotFoundError where the node has none; as `verify`."""
        row = self.row_of(node)
        if row < 0:
            raise NotFoundError(f"{self.path}: node {node} has no block")
        self._verify_row(row)
        block: npt.NDArray[np.uint8] = self._blocks[row]
        return block

    def read(self, node: int) -> npt.NDArray[np.float32]:
        """The dequantised block, f32 [layers, tensors, rows_per_block, columns], verified."""
        spec = self.spec
        block = self.block_bytes(node)
        scales = block[: spec.layers * spec.layer_scale_bytes].tobytes()
        body = block[spec.scale_bytes : spec.scale_bytes + spec.layers * spec.layer_bytes].reshape(
            spec.layers, -1
        )
        count = math.prod(spec.block_shape[1:])
        data = np.ascontiguousarray(body[:, : count * ELEMENT_BITS[spec.dtype] // 8])
        values = dequantize(spec.dtype, data, scales, spec.block_shape[-1])
        return values.reshape(spec.block_shape)

    def verify(self) -> Iterator[int]:
        """Checks every block's checksums and scales; yields after each row.

        ChecksumError and BadFormatError say where.
        """
        for row in range(self.spec.rows):
            self._verify_row(row)
            yield row

    def _verify_row(self, row: int) -> None:
        import xxhash

        spec, block = self.spec, self._blocks[row]
        for layer in range(spec.layers):
            scales = block[layer * spec.layer_scale_bytes : (layer + 1) * spec.layer_scale_bytes]
            offset = spec.scale_bytes + layer * spec.layer_bytes
            digest = xxhash.xxh3_64(scales)
            digest.update(block[offset : offset + spec.layer_bytes])
            if digest.intdigest() != int(self._xxh3[row, layer]):
                raise ChecksumError(f"{self._place(row, layer)}: checksum mismatch: copy it again")
            if spec.dtype in SCALE_BITS:
                bits, infinity = SCALE_BITS[spec.dtype]
                if int(np.frombuffer(scales.tobytes(), bits).max()) >= infinity:
                    raise BadFormatError(f"{self._place(row, layer)}: a scale is negative or not finite")

    def _place(self, row: int, layer: int) -> str:
        spec = self.spec
        node = int(np.flatnonzero(self._row_of_node == row)[0])
        offset = self.data_start + row * spec.stride + spec.scale_bytes + layer * spec.layer_bytes
        return f"{self.path}: level {spec.level}, node {node}, row {row}, layer {layer}, offset {offset}"

    def tables_sha256(self) -> str:
        """SHA-256, in hexadecimal, of all bytes but the blocks: what the manifest states for a level file."""
        import hashlib

        digest = hashlib.sha256()
        with self.path.open("rb") as file:
            digest.update(file.read(self.data_start))
            file.seek(self.data_start + self.spec.rows * self.spec.stride)
            digest.update(file.read())
        return digest.hexdigest()


def dequantize(
    dtype: str, data: npt.NDArray[np.uint8], scales: bytes, columns: int
) -> npt.NDArray[np.float32]:
    """Consecutive matrix rows, u8 `data` with `scales` in the same order, as f32 [rows, columns]."""
    flat = data.reshape(-1)
    values: npt.NDArray[Any]
    if dtype == "f32":
        values = flat.view("<f4")
    elif dtype == "f16":
        values = flat.view("<f2").astype(np.float32)
    elif dtype == "bf16":
        values = (flat.view("<u2").astype(np.uint32) << 16).view(np.float32)
    elif dtype == "i8":
        values = flat.view(np.int8).reshape(-1, columns) * np.frombuffer(scales, "<f4")[:, None]
    else:
        packed = flat.reshape(-1, I4_GROUP // 2)
        q = np.concatenate([packed & 15, packed >> 4], axis=1).astype(np.float32) - 8
        values = q * np.frombuffer(scales, "<f2").astype(np.float32)[:, None]
    return np.asarray(values, np.float32).reshape(-1, columns)
