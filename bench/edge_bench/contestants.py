"""What iobench compares: each brings the blocks of one path into memory, its own way.

The life of a contestant in one measurement, of which `read` alone is timed:

    prepare()  opens what it keeps open between fetches, and is as it would be before this one
    read()     the blocks are in memory, whole, when it returns
    blocks()   what has been read, one array a level, to be compared; valid until forget
    forget()   gives up memory and mappings, so that nothing keeps pages in the page cache
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edge_bench._native import PagerProbe, RawReader
from edge_bench.banks import Bank
from edge_runtime.pager import Lease, Node, Pager, StorageKind

Blocks = list[npt.NDArray[np.uint8]]
EVERYTHING = 2**62  # bytes, to shrink by


@dataclass(frozen=True)
class Target:
    """What is to be read: blocks of some levels of a path."""

    nodes: list[Node]
    rows: list[int]

    @staticmethod
    def of(bank: Bank, leaf: int, levels: range | None = None) -> Target:
        """The path of a leaf, or those of its blocks that lie in `levels`."""
        pairs = [
            (node, row)
            for node, row in zip(bank.config.path(leaf), bank.rows(leaf), strict=True)
            if levels is None or node[0] in levels
        ]
        return Target([node for node, _ in pairs], [row for _, row in pairs])

    def bytes(self, bank: Bank) -> int:
        return sum(bank.config.strides[level - 1] for level, _ in self.nodes)

    def elsewhere(self, bank: Bank) -> Target:
        """Blocks of the same levels below another node of level 1: what was read before a change of topic."""
        k, levels = bank.config.fanout, [level for level, _ in self.nodes]
        branch = self.nodes[0][1] // k ** (levels[0] - 1)
        other = next(leaf for leaf in bank.leaves if leaf // k ** (len(bank.config.rows) - 1) != branch)
        return Target.of(bank, other, range(levels[0], levels[-1] + 1))


class Contestant(ABC):
    """REQUIRES prepare, read, blocks and forget in this order; read and blocks may be repeated."""

    def __init__(self, name: str, bank: Bank) -> None:
        self.name = name
        self.bank = bank

    @property
    def files(self) -> list[Path]:
        """Whose pages it reads."""
        return self.bank.paths

    def ranges(self, target: Target) -> list[tuple[Path, int, int]]:
        """The file, offset and length of each block."""
        strides = self.bank.config.strides
        return [
            (self.bank.paths[level - 1], self.bank.block_offset(level, row), strides[level - 1])
            for (level, _), row in zip(target.nodes, target.rows, strict=True)
        ]

    @abstractmethod
    def prepare(self, target: Target) -> None: ...

    @abstractmethod
    def read(self, target: Target) -> None: ...

    @abstractmethod
    def blocks(self) -> Blocks: ...

    @abstractmethod
    def forget(self) -> None: ...


class PagerContestant(Contestant):
    """edge_runtime.Pager through Python: fetch and wait, under a budget of just the blocks.

    It stays open. Before a read its budget is full of the blocks of another topic, as a pager's is after a while;
    with `empty` it holds nothing, as at its start.
    """

    def __init__(self, bank: Bank, storage: StorageKind, verify: bool = True, empty: bool = False) -> None:
        name = f"pager {storage}" + ("" if verify else ", unverified") + (", from empty" if empty else "")
        super().__init__(name, bank)
        self._storage, self._verify, self._empty = storage, verify, empty
        self._pager: Pager | None = None
        self._lease: Lease | None = None
        self._target: Target | None = None

    @property
    def pager(self) -> Pager:
        assert self._pager is not None
        return self._pager

    def prepare(self, target: Target) -> None:
        if self._pager is None:
            # Opened once, in the state of the cache that is measured: `auto` looks at it.
            paths = [[path] for path in self.bank.paths]
            self._pager = Pager(paths, target.bytes(self.bank), self._storage, verify=self._verify)
        if not self._empty:
            with self.pager.fetch(target.elsewhere(self.bank).nodes) as lease:
                lease.wait()

    def read(self, target: Target) -> None:
        self._lease = self.pager.fetch(target.nodes)
        self._lease.wait()
        self._target = target

    def blocks(self) -> Blocks:
        assert self._lease is not None
        assert self._target is not None
        return [self._lease.view(*node) for node in self._target.nodes]

    def forget(self) -> None:
        if self._lease is not None:
            self._lease.release()
            self._lease = None
        if self._pager is not None:
            self._pager.shrink(EVERYTHING)

    def close(self) -> None:
        """So that the next `prepare` opens the pager anew."""
        self.forget()
        self._pager = None


@dataclass(frozen=True)
class RawSetting:
    """One point of the raw reader's sweep."""

    engine: str
    chunk_bytes: int
    depth: int
    fresh: bool = False

    def __str__(self) -> str:
        unit = "threads" if self.engine == "pread" else "deep"
        memory = ", fresh memory" if self.fresh else ""
        return f"raw {self.engine} {self.chunk_bytes >> 10} KiB x {self.depth} {unit}{memory}"


class RawContestant(Contestant):
    """The raw O_DIRECT reader: into memory that is there and aligned, or (`fresh`) new memory each time."""

    def __init__(self, bank: Bank, setting: RawSetting) -> None:
        super().__init__(str(setting), bank)
        self.setting = setting
        self._reader: RawReader | None = None
        self._bytes: npt.NDArray[np.uint8] | None = None
        self._lengths: list[int] = []

    def prepare(self, target: Target) -> None:
        self._reader = RawReader(
            [str(path) for path in self.bank.paths],
            self.setting.engine,
            self.setting.chunk_bytes,
            self.setting.depth,
            self.setting.fresh,
            target.bytes(self.bank),
        )

    def read(self, target: Target) -> None:
        assert self._reader is not None
        ranges = [
            (level - 1, offset, length)
            for (level, _), (_, offset, length) in zip(target.nodes, self.ranges(target), strict=True)
        ]
        self._bytes = self._reader.read(ranges)
        self._lengths = [length for _, _, length in ranges]

    def blocks(self) -> Blocks:
        assert self._bytes is not None
        return np.split(self._bytes, np.cumsum(self._lengths)[:-1])

    def forget(self) -> None:
        self._bytes = None
        self._reader = None


class ProbeContestant(Contestant):
    """The pager without Python between the calls, with a number of reads at once of its own."""

    def __init__(self, bank: Bank, storage: StorageKind, lanes: int) -> None:
        super().__init__(f"pager {storage}, {lanes} lanes, C++", bank)
        self.storage, self.lanes = storage, lanes
        paths = [str(path) for path in bank.paths]
        self._probe = PagerProbe(paths, storage, bank.config.path_bytes, True, lanes)

    def prepare(self, target: Target) -> None:
        self._probe.fetch(target.elsewhere(self.bank).nodes, 1)

    def read(self, target: Target) -> None:
        self._probe.fetch(target.nodes, 1)

    def blocks(self) -> Blocks:
        raise NotImplementedError("the probe releases its lease before it returns")

    def forget(self) -> None:
        self._probe.shrink(EVERYTHING)
