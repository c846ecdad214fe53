"""Reads level files (docs/bank-format.md) with the stock safetensors library, to inspect and verify them.

The pager's own reader is the C++ one; both read the same golden files.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import xxhash
from safetensors import SafetensorError, safe_open

from edge_runtime.errors import (
    BadFormatError,
    ChecksumError,
    InvalidArgumentError,
    NotFoundError,
    TruncatedError,
    UnsupportedError,
)

PAGE = 16384
I4_GROUP = 32
ELEMENT_BITS = {"f32": 32, "f16": 16, "bf16": 16, "i8": 8, "i4": 4}


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple


@dataclass(frozen=True)
class LevelSpec:
    """A level file's metadata; sizes in bytes follow docs/bank-format.md."""

    kind: str
    level: int
    fanout: int
    dtype: str
    d_model: int
    rows_per_block: int
    anchor_layers: tuple[int, ...]
    tensors: tuple[tuple[str, int, int], ...]
    rows: int

    @property
    def nodes(self) -> int:
        return int(self.fanout**self.level)

    @property
    def layers(self) -> int:
        return len(self.anchor_layers)

    @property
    def layer_scale_bytes(self) -> int:
        if self.dtype not in ("i8", "i4"):
            return 0
        return sum(
            rows * (4 if self.dtype == "i8" else columns // I4_GROUP * 2) for _, rows, columns in self.tensors
        )

    @property
    def scale_bytes(self) -> int:
        return _round_up(self.layers * self.layer_scale_bytes, 64)

    @property
    def layer_bytes(self) -> int:
        bits = ELEMENT_BITS[self.dtype]
        return _round_up(sum(rows * columns * bits // 8 for _, rows, columns in self.tensors), 64)

    @property
    def stride(self) -> int:
        return _round_up(self.scale_bytes + self.layers * self.layer_bytes, PAGE)


class LevelReader:
    """One level file. Opening raises NotFoundError, TruncatedError, BadFormatError or UnsupportedError."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise NotFoundError(f"{self.path}: no such file")
        try:
            with safe_open(self.path, framework="numpy") as file:
                metadata = file.metadata() or {}
                self._check_names(set(file.keys()))
                self.spec = self._parse(metadata, file.get_slice("blocks").get_shape())
                self._xxh3: npt.NDArray[np.uint64] = file.get_tensor("xxh3")
                self._row_of_node: npt.NDArray[np.int32] = file.get_tensor("row_of_node")
        except SafetensorError as error:
            size = self.path.stat().st_size
            hint = "it may be cut short: copy it again"
            kind = TruncatedError if "ncomplete" in str(error) or size < 8 else BadFormatError
            raise kind(f"{self.path}: not a whole safetensors file ({error}); {hint}") from None
        with self.path.open("rb") as handle:
            self.data_start = 8 + int.from_bytes(handle.read(8), "little")
        if self._xxh3.shape != (self.spec.rows, self.spec.layers) or self._row_of_node.shape != (
            self.spec.nodes,
        ):
            raise BadFormatError(f"{self.path}: the tables' shapes do not agree with rows, layers and nodes")
        named = np.sort(self._row_of_node[self._row_of_node != -1])
        if not np.array_equal(named, np.arange(self.spec.rows)):
            raise BadFormatError(f"{self.path}: row_of_node does not name each row exactly once")
        self._blocks: npt.NDArray[np.uint8] = (
            np.memmap(self.path, np.uint8, "r", self.data_start, (self.spec.rows, self.spec.stride))
            if self.spec.rows
            else np.zeros((0, self.spec.stride), np.uint8)
        )

    def _check_names(self, names: set[str]) -> None:
        if names != {"blocks", "xxh3", "row_of_node"}:
            raise BadFormatError(
                f"{self.path}: it must hold exactly the tensors blocks, xxh3 and row_of_node"
            )

    def _parse(self, metadata: dict[str, str], shape: list[int]) -> LevelSpec:
        if metadata.get("format") != "edge-runtime.bank":
            raise BadFormatError(
                f"{self.path}: not a bank level file (metadata 'format' is not edge-runtime.bank)"
            )
        if metadata.get("version") != "1":
            raise UnsupportedError(
                f"{self.path}: bank version {metadata.get('version')}; this build reads version 1: "
                "update edge-runtime"
            )
        try:
            spec = LevelSpec(
                kind=metadata["kind"],
                level=int(metadata["level"]),
                fanout=int(metadata["fanout"]),
                dtype=metadata["dtype"],
                d_model=int(metadata["d_model"]),
                rows_per_block=int(metadata["rows_per_block"]),
                anchor_layers=tuple(json.loads(metadata["anchor_layers"])),
                tensors=tuple(
                    (name, rows, columns) for name, (rows, columns) in json.loads(metadata["tensors"])
                ),
                rows=shape[0],
            )
            stated = (int(metadata["scale_bytes"]), int(metadata["layer_bytes"]), shape[1])
            derived = (spec.scale_bytes, spec.layer_bytes, spec.stride)
        except (KeyError, ValueError, TypeError) as error:
            raise BadFormatError(f"{self.path}: bad or missing metadata ({error!r})") from None
        if spec.dtype not in ELEMENT_BITS:
            raise UnsupportedError(f"{self.path}: unknown dtype {spec.dtype!r}")
        if stated != derived:
            raise BadFormatError(
                f"{self.path}: scale_bytes, layer_bytes and stride are {stated}, "
                f"the other metadata make them {derived}"
            )
        return spec

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
        """The raw block, u8 [stride], verified. NotFoundError where the node has none; ChecksumError."""
        row = self.row_of(node)
        if row < 0:
            raise NotFoundError(f"{self.path}: node {node} has no block")
        self._verify_row(row)
        block: npt.NDArray[np.uint8] = self._blocks[row]
        return block

    def read(self, node: int) -> npt.NDArray[np.float32]:
        """The dequantised block of FFN memory, f32 [layers, 3, rows_per_block, d_model], verified."""
        spec = self.spec
        block = self.block_bytes(node)
        scales = block[: spec.layers * spec.layer_scale_bytes].tobytes()
        body = block[spec.scale_bytes : spec.scale_bytes + spec.layers * spec.layer_bytes].reshape(
            spec.layers, -1
        )
        count = 3 * spec.rows_per_block * spec.d_model
        data = np.ascontiguousarray(body[:, : count * ELEMENT_BITS[spec.dtype] // 8])
        values = dequantize(spec.dtype, data, scales, spec.d_model)
        return values.reshape(spec.layers, 3, spec.rows_per_block, spec.d_model)

    def verify(self) -> Iterator[int]:
        """Checks every block's checksums; yields after each row. ChecksumError says where."""
        for row in range(self.spec.rows):
            self._verify_row(row)
            yield row

    def _verify_row(self, row: int) -> None:
        spec, block = self.spec, self._blocks[row]
        for layer in range(spec.layers):
            digest = xxhash.xxh3_64(
                block[layer * spec.layer_scale_bytes : (layer + 1) * spec.layer_scale_bytes]
            )
            offset = spec.scale_bytes + layer * spec.layer_bytes
            digest.update(block[offset : offset + spec.layer_bytes])
            if digest.intdigest() != int(self._xxh3[row, layer]):
                node = int(np.flatnonzero(self._row_of_node == row)[0])
                raise ChecksumError(
                    f"{self.path}: checksum mismatch at level {spec.level}, node {node}, row {row}, "
                    f"layer {layer}, offset {self.data_start + row * spec.stride + offset}: copy it again"
                )

    def tables_sha256(self) -> str:
        """SHA-256, in hexadecimal, of all bytes but the blocks: what the manifest states for a level file."""
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
