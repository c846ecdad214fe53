"""The files of one level as one: which of them holds a node's block, and copies of what they hold."""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from pathlib import Path

from edge_runtime import _core
from edge_runtime.administration.edit import Advance
from edge_runtime.bank import LevelReader
from edge_runtime.bank_header import LevelSpec


class LevelFiles:
    """Base first, overlays after it: the last file that has a node wins."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._readers = [LevelReader(path) for path in paths]
        self._files = [_core.LevelFile(str(path)) for path in paths]

    @property
    def spec(self) -> LevelSpec:
        """The base's. Its `rows` are the base's own."""
        return self._readers[0].spec

    @property
    def rows(self) -> int:
        """Blocks in all files, those that a later file hides among them."""
        return sum(reader.spec.rows for reader in self._readers)

    def nodes(self, without: Container[int] = ()) -> list[int]:
        """The nodes that have a block in some file, ascending."""
        found = {int(node) for reader in self._readers for node in reader.nodes()}
        return sorted(node for node in found if node not in without)

    def has(self, node: int) -> bool:
        return any(reader.row_of(node) >= 0 for reader in self._readers)

    def reader_of(self, node: int) -> LevelReader:
        """That of the file whose block counts. REQUIRES has(node)."""
        return self._readers[self._holder(node)]

    def copy(self, node: int, writer: _core.LevelWriter) -> None:
        """Copies the node's block as it is, verified. REQUIRES has(node)."""
        writer.copy(node, self._files[self._holder(node)])

    def writer(self, path: Path, rows: int) -> _core.LevelWriter:
        """Writes another file of this level."""
        return _core.LevelWriter.like(str(path), self._files[0], rows)

    def write_copy(self, path: Path, advance: Advance, nodes: Iterable[int]) -> None:
        """A level file of these nodes' blocks, one at a time. REQUIRES has(node) for each."""
        chosen = list(nodes)
        writer = self.writer(path, len(chosen))
        for node in chosen:
            self.copy(node, writer)
            advance(self.spec.stride)
        writer.finish()

    def _holder(self, node: int) -> int:
        return max(i for i, reader in enumerate(self._readers) if reader.row_of(node) >= 0)
