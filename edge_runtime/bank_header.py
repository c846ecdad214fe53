"""The header of a level file (docs/bank-format.md), checked as strictly as the C++ core checks it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from edge_runtime.errors import BadFormatError, TruncatedError, UnsupportedError

PAGE = 16384
I4_GROUP = 32
ELEMENT_BITS = {"f32": 32, "f16": 16, "bf16": 16, "i8": 8, "i4": 4}
KINDS = ("ffn", "lora_qk", "lora_vo", "lora_ffn", "kv")
TENSOR_DTYPES = {"blocks": "U8", "xxh3": "U64", "row_of_node": "I32"}  # in the order of the file
MAX_HEADER_BYTES = 16 << 20
MAX_DEPTH = 16  # of the header's JSON
MAX_LAYER_BYTES = 2**28
MAX_EXTENT = 2**20
MAX_LAYERS = 2**12
MAX_TENSORS = 16


def shown(text: object) -> str:
    """For an error message: one line of printable ASCII, cut short."""
    return ascii(str(text))[1:-1][:200]


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
    def block_shape(self) -> tuple[int, int, int, int]:
        """[layers, tensors, rows_per_block, columns]. UnsupportedError where a layer's tensors are not all alike."""
        if len({(rows, columns) for _, rows, columns in self.tensors}) > 1:
            raise UnsupportedError(
                f"memory of the kind {self.kind} whose tensors differ in shape: export the bundle again"
            )
        return self.layers, len(self.tensors), *self.tensors[0][1:]

    @property
    def layer_scale_bytes(self) -> int:
        if self.dtype == "i8":
            return sum(rows * 4 for _, rows, _ in self.tensors)
        if self.dtype == "i4":
            return sum(rows * (columns // I4_GROUP) * 2 for _, rows, columns in self.tensors)
        return 0

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


def check_frame(path: Path) -> None:
    """That the file is long enough for the header that it announces. TruncatedError, BadFormatError."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
    if size < 8:
        raise TruncatedError(f"{path}: {size} bytes are no safetensors file")
    if length > MAX_HEADER_BYTES:
        raise BadFormatError(f"{path}: not a safetensors file (its header would be {length} bytes long)")
    if length > size - 8:
        raise TruncatedError(f"{path}: ends inside its header: copy it again")


def is_cut_short(path: Path) -> bool:
    """Whether the file ends before its last tensor. BadFormatError.

    REQUIRES a header that the safetensors library takes.
    """
    header, data_start = _HeaderParser(path).load()
    ends = [entry["data_offsets"][1] for key, entry in header.items() if key != "__metadata__"]
    return data_start + max(ends, default=0) > path.stat().st_size


def read_header(path: Path) -> tuple[LevelSpec, int]:
    """The spec, and the offset at which the data starts. BadFormatError, UnsupportedError.

    REQUIRES a file that the safetensors library has opened: its tensors lie within it and tile it.
    """
    return _HeaderParser(path).parse()


def _is_deeper(value: object, most: int) -> bool:
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return most < 0 or any(_is_deeper(child, most - 1) for child in children)


def _unsigned(digits: str) -> int:
    """-0 is no unsigned integer to other readers."""
    return -1 if digits.startswith("-") else int(digits)


class _HeaderParser:
    def __init__(self, path: Path) -> None:
        self._path = path

    def _bad(self, what: str) -> BadFormatError:
        return BadFormatError(f"{self._path}: {what}")

    def parse(self) -> tuple[LevelSpec, int]:
        header, data_start = self.load()
        spec = self._spec(header.get("__metadata__") or {}, header)
        if data_start % PAGE:
            raise self._bad("its data does not start at a multiple of 16,384")
        return spec, data_start

    def load(self) -> tuple[dict[str, Any], int]:
        """The header's JSON, and the offset at which the data starts."""
        with self._path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            text = file.read(length)
        header: dict[str, Any] = json.loads(text, object_pairs_hook=self._distinct)
        if _is_deeper(header, MAX_DEPTH):
            raise self._bad(f"its header is nested deeper than {MAX_DEPTH}")
        return header, 8 + length

    def _distinct(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        """Readers keep the first or the last of two equal keys: neither is what the other shows."""
        if len({key for key, _ in pairs}) != len(pairs):
            raise self._bad("its header has a key twice")
        return dict(pairs)

    def _shapes(self, header: dict[str, Any]) -> dict[str, list[int]]:
        entries = {key: value for key, value in header.items() if key != "__metadata__"}
        if {key: entry["dtype"] for key, entry in entries.items()} != TENSOR_DTYPES:
            raise self._bad("it must hold exactly the tensors blocks U8, xxh3 U64 and row_of_node I32")
        offsets = [offset for key in TENSOR_DTYPES for offset in entries[key]["data_offsets"]]
        if offsets != sorted(offsets):
            raise self._bad("blocks, xxh3 and row_of_node must follow in this order")
        return {key: entry["shape"] for key, entry in entries.items()}

    def _spec(self, metadata: dict[str, str], header: dict[str, Any]) -> LevelSpec:
        if metadata.get("format") != "edge-runtime.bank":
            raise self._bad("not a bank level file (metadata 'format' is not edge-runtime.bank)")
        version = self._number(metadata, "version", 1, 2**32 - 1)
        if version != 1:
            raise UnsupportedError(
                f"{self._path}: bank version {version}; this build reads version 1: update edge-runtime"
            )
        kind = self._text(metadata, "kind")
        dtype = self._text(metadata, "dtype")
        if kind not in KINDS or dtype not in ELEMENT_BITS:
            raise UnsupportedError(f"{self._path}: unknown kind '{shown(kind)}' or dtype '{shown(dtype)}'")
        # What a later version, kind or dtype makes of the rest is not for this build to judge.
        shapes = self._shapes(header)
        if len(shapes["blocks"]) != 2:
            raise self._bad("blocks is not of [rows, stride]")
        spec = LevelSpec(
            kind=kind,
            level=self._number(metadata, "level", 0, 8),
            fanout=self._number(metadata, "fanout", 2, 256),
            dtype=dtype,
            d_model=self._number(metadata, "d_model", 1, MAX_EXTENT),
            rows_per_block=self._number(metadata, "rows_per_block", 1, MAX_EXTENT),
            anchor_layers=self._anchor_layers(metadata),
            tensors=self._tensors(metadata),
            rows=shapes["blocks"][0],
        )
        self._check(spec, metadata, shapes)
        return spec

    def _check(self, spec: LevelSpec, metadata: dict[str, str], shapes: dict[str, list[int]]) -> None:
        if spec.kind == "ffn":
            extents = (spec.rows_per_block, spec.d_model)
            if spec.tensors != tuple((name, *extents) for name in ("w1", "w2", "w3")):
                raise self._bad("ffn memories have the tensors w1, w2, w3 of [rows_per_block, d_model]")
        if spec.dtype == "i4" and any(columns % I4_GROUP for _, _, columns in spec.tensors):
            raise self._bad(f"i4 needs rows of a multiple of {I4_GROUP} elements: use i8")
        if spec.layer_bytes > MAX_LAYER_BYTES:
            raise self._bad(f"a layer of more than {MAX_LAYER_BYTES} bytes")
        for key, value in (("scale_bytes", spec.scale_bytes), ("layer_bytes", spec.layer_bytes)):
            if self._number(metadata, key, 0, 2**40) != value:
                raise self._bad(f"metadata '{key}' does not agree with the others, which make it {value}")
        derived = {
            "blocks": [spec.rows, spec.stride],
            "xxh3": [spec.rows, spec.layers],
            "row_of_node": [spec.nodes],
        }
        if shapes != derived:
            raise self._bad(f"its tensors' shapes are {shown(shapes)}, the metadata make them {derived}")

    def _text(self, metadata: dict[str, str], key: str) -> str:
        if key not in metadata:
            raise self._bad(f"metadata '{key}' is missing")
        return metadata[key]

    def _number(self, metadata: dict[str, str], key: str, low: int, high: int) -> int:
        text = self._text(metadata, key)
        # int() takes more than digits, and refuses very long ones in its own way.
        value = int(text) if text.isascii() and text.isdigit() and len(text) <= 20 else -1
        if not low <= value <= high:
            raise self._bad(f"metadata '{key}' is '{shown(text)}', not a number from {low} to {high}")
        return value

    def _list(self, metadata: dict[str, str], key: str, longest: int) -> list[Any]:
        try:
            value = json.loads(self._text(metadata, key), parse_int=_unsigned)
            json.dumps(value, ensure_ascii=False).encode()  # half a surrogate pair is no text
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, list) or not 0 < len(value) <= longest:
            raise self._bad(f"metadata '{key}' is not a JSON list of 1 to {longest} items")
        return value

    def _anchor_layers(self, metadata: dict[str, str]) -> tuple[int, ...]:
        layers = self._list(metadata, "anchor_layers", MAX_LAYERS)
        if not all(type(layer) is int and 0 <= layer < MAX_LAYERS for layer in layers) or any(
            a >= b for a, b in pairwise(layers)
        ):
            raise self._bad("metadata 'anchor_layers' is not ascending")
        return tuple(layers)

    def _tensors(self, metadata: dict[str, str]) -> tuple[tuple[str, int, int], ...]:
        tensors = []
        for item in self._list(metadata, "tensors", MAX_TENSORS):
            match item:
                case [str(name), [int(rows), int(columns)]] if (
                    not isinstance(rows, bool)
                    and not isinstance(columns, bool)
                    and 0 < rows <= MAX_EXTENT
                    and 0 < columns <= MAX_EXTENT
                ):
                    tensors.append((name, rows, columns))
                case _:
                    raise self._bad("metadata 'tensors' is not a list of [name, [rows, columns]]")
        return tuple(tensors)
