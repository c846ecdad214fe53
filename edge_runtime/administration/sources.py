"""Where the blocks come from that `replace` puts into a bank."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, deserialize, safe_open

from edge_runtime import _core
from edge_runtime.administration.level_files import LevelFiles
from edge_runtime.bank_header import LevelSpec, shown
from edge_runtime.bundle import Bundle
from edge_runtime.errors import BadFormatError, InvalidArgumentError, NotFoundError

NAMES = ("w1", "w2", "w3")
FLOATS: dict[str, str] = {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}


class Source(Protocol):
    """Blocks of one level."""

    def write(self, node: int, writer: _core.LevelWriter) -> None:
        """Appends the node's block."""
        ...


def open_source(path: Path, spec: LevelSpec, nodes: Sequence[int]) -> Source:
    """The blocks of `nodes` in a bundle, a level file or a file of one block, checked against the level's `spec`.

    Raises:
        NotFoundError, InvalidArgumentError, BadFormatError: the message names the file and what is wrong.
    """
    if path.is_dir():
        return _of_bundle(path, spec, nodes)
    if not path.is_file():
        raise NotFoundError(f"{path}: no such file")
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise BadFormatError(f"{path}: not a safetensors file ({shown(error)})") from None
    if metadata.get("format") == "edge-runtime.bank":
        return LevelSource(path, LevelFiles([path]), spec, nodes)
    if len(nodes) > 1:
        raise InvalidArgumentError(f"{path}: it holds one block: name one node")
    return TensorSource(path, spec)


def _of_bundle(path: Path, spec: LevelSpec, nodes: Sequence[int]) -> Source:
    bundle = Bundle.open(path)
    level = bundle.manifest.memory and bundle.manifest.memory.level(spec.level)
    if not level:
        raise NotFoundError(f"{path}: it has no memory of level {spec.level}")
    if gone := [node for node in nodes if (spec.level, node) in bundle.state.removed]:
        raise NotFoundError(f"{path}: {spec.level}:{gone[0]} is removed there")
    return LevelSource(path, LevelFiles([bundle.path_of(name) for name in level.files]), spec, nodes)


class LevelSource:
    """Files of the same level of the same bank."""

    def __init__(self, path: Path, files: LevelFiles, spec: LevelSpec, nodes: Sequence[int]) -> None:
        theirs = files.spec
        for what in ("kind", "level", "fanout", "d_model", "anchor_layers", "rows_per_block", "tensors"):
            if getattr(theirs, what) != getattr(spec, what):
                raise InvalidArgumentError(
                    f"{path}: its {what} is {getattr(theirs, what)}, the bank's {getattr(spec, what)}"
                )
        if theirs.dtype != spec.dtype and spec.kind != "ffn":
            raise InvalidArgumentError(f"{path}: its dtype is {theirs.dtype}, the bank's {spec.dtype}")
        for node in nodes:
            if not files.has(node):
                raise NotFoundError(f"{path}: it has no block of {spec.level}:{node}")
        self._files, self._as_it_is = files, theirs.dtype == spec.dtype

    def write(self, node: int, writer: _core.LevelWriter) -> None:
        if self._as_it_is:
            self._files.copy(node, writer)
        else:
            writer.append(node, self._files.reader_of(node).read(node))


class TensorSource:
    """w1, w2 and w3 of one block, as training code has them."""

    def __init__(self, path: Path, spec: LevelSpec) -> None:
        self._path = path
        if spec.kind != "ffn":
            raise InvalidArgumentError(
                f"{path}: blocks of {spec.kind} memory come from level files and bundles"
            )
        entries: dict[str, Any] = dict(deserialize(path.read_bytes()))  # type: ignore[no-untyped-call]
        shape = [spec.layers, spec.rows_per_block, spec.d_model]
        wanted = f"a block of this level is w1, w2 and w3 of {shape}"
        if entries.keys() != set(NAMES):
            raise InvalidArgumentError(f"{path}: it holds {shown(', '.join(sorted(entries)))}; {wanted}")
        for name in NAMES:
            entry = entries[name]
            if list(entry["shape"]) != shape:
                raise InvalidArgumentError(f"{path}: {name} is of {list(entry['shape'])}; {wanted}")
            if entry["dtype"] not in FLOATS:
                raise InvalidArgumentError(f"{path}: {name} is {entry['dtype']}: give f32, f16 or bf16")
        self._block = np.stack([_floats(entries[name]) for name in NAMES], axis=1)

    def write(self, node: int, writer: _core.LevelWriter) -> None:
        try:
            writer.append(node, self._block)
        except (
            InvalidArgumentError
        ) as error:  # a value that is not finite, or too large for the level's dtype
            raise InvalidArgumentError(f"{self._path}: it cannot be stored: {error}") from None


def _floats(entry: dict[str, Any]) -> npt.NDArray[np.float32]:
    raw = np.frombuffer(bytes(entry["data"]), FLOATS[entry["dtype"]]).reshape(entry["shape"])
    if entry["dtype"] == "BF16":
        return (raw.astype(np.uint32) << 16).view(np.float32)
    return raw.astype(np.float32)
