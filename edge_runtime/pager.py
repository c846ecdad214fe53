"""The pager: blocks of a bank in memory, under a hard budget.

The C++ core does the work (`cpp/include/edge_runtime/pager.h` states its contract); this is its typed face.

    with pager.fetch([(0, 0), (1, 7), (2, 113)]) as lease:
        lease.wait()
        block = lease.view(level=2)  # u8 [stride], in place
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from os import PathLike, fspath
from typing import Literal, TypedDict

from edge_runtime import _core
from edge_runtime._core import Lease, ThrottledDevice
from edge_runtime.errors import InvalidArgumentError

__all__ = [
    "Lease",
    "LevelStats",
    "Node",
    "Pager",
    "PagerStats",
    "Percentiles",
    "StorageKind",
    "StorageReport",
    "ThrottledDevice",
    "Tier",
    "parse_budget",
]

Node = tuple[int, int]
"""(level, index in the level)."""
StorageKind = Literal["auto", "direct", "mapped", "uring"]
"""How a file is read: "direct" is past the page cache, by threads; "uring" is the same by io_uring, or refused;
"mapped" is in place. "auto" picks direct or mapped by a short probe."""
Tier = StorageKind | tuple[StorageKind, ThrottledDevice]
"""A kind, or with it a device that reads are slowed down to."""

_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


def parse_budget(budget: int | str) -> int:
    """Bytes of a budget: an int, or text such as "8MB" (10^6 bytes each), "512KiB" (2^10) or "1.5 GB".

    Raises:
        InvalidArgumentError: not a size, or not positive.
    """
    if isinstance(budget, str):
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", budget)
        unit = _UNITS.get(match[2].upper()) if match else None
        if match is None or unit is None:
            raise InvalidArgumentError(
                f"{budget!r} is not a size: write bytes, or a number with B, KB, MB, GB, KiB, MiB or GiB"
            )
        number, _, fraction = match[1].partition(".")
        # Whole numbers stay exact beyond 2^53.
        size = int(number) * unit + int(float(f"0.{fraction or 0}") * unit)
    else:
        size = budget
    if size <= 0:
        raise InvalidArgumentError(f"a budget of {budget!r}: it must be positive")
    return size


def _tier(tier: Tier) -> tuple[StorageKind, ThrottledDevice | None]:
    return (tier, None) if isinstance(tier, str) else tier


class Percentiles(TypedDict):
    """Durations in nanoseconds, within 1.6%; the maximum is exact. Zeros where there were none."""

    count: int
    p50: int
    p90: int
    p99: int
    p999: int
    max: int


class LevelStats(TypedDict):
    """What a pager has done for one level."""

    level: int
    resident_bytes: int  # blocks that have wholly arrived
    hits: int  # blocks that a fetch found resident or in flight
    misses: int  # blocks that a fetch had to have read
    bytes_read: int  # of completed reads, for fetches, hints and pins
    evictions: int  # blocks


class PagerStats(TypedDict):
    """What a pager has done since it was opened."""

    budget_bytes: int
    resident_bytes: int  # blocks that have wholly arrived
    in_flight_bytes: int  # blocks that have memory and are still being read
    peak_bytes: int  # the most that the two have been together
    leased_bytes: int  # blocks that leases use
    pinned_bytes: int  # kept for pinned blocks, loaded or not
    leases: int  # open now
    fetches: int  # granted
    hits: int  # these four: the sums of the levels
    misses: int
    bytes_read: int
    evictions: int
    requests: int  # reads given to a storage
    rereads: int  # layers read again after a checksum mismatch
    failures: int  # blocks that ended in an error
    prefetches: int  # blocks that hints have begun to read
    prefetch_hits: int  # of these, blocks that a fetch then found
    stall_ns: int  # that threads have spent waiting for layers, added up
    fetch_latency_ns: Percentiles  # of fetches that had to wait: until the last byte was verified
    stall_latency_ns: Percentiles  # of the waits that were not over at once
    levels: list[LevelStats]


class StorageReport(TypedDict):
    """Which backend reads a file, and why."""

    path: str
    backend: str  # "direct/io_uring", "direct/pool", "buffered/pool" or "mapped"
    reason: str


class Pager:
    """Brings blocks of a bank into memory under a hard budget on bank bytes, resident and in flight together.

    Thread-safe; waiting releases the GIL.

    Args:
        levels: the files of each level, the base first and overlays after it, which win.
        budget: bytes, or text for `parse_budget`.
        storage: how files are read, or for each level by its number ("auto" where a level is not named);
            `storage_report` says what was chosen, and why.
        blocked: (level, node) pairs that are refused, each with its subtree.
        removed: (level, node) pairs that are refused.
        verify: compare every layer with its checksum before it can be used.
        pinned: blocks that are never evicted: levels, and single (level, node) pairs. Their bytes are taken from
            the budget, and they are read behind whatever is fetched.

    Raises:
        NotFoundError, TruncatedError, BadFormatError, UnsupportedError: a level file.
        InvalidArgumentError: levels that do not belong together, the budget, or storage for a level that is not there.
        UnsupportedError: "uring" where it does not work.
        NeverFitsError: the pinned blocks do not fit beside one path; `required_bytes` would do.
        NotFoundError, InvalidArgumentError, BlockedError: a pinned node, as for `fetch`.
    """

    def __init__(
        self,
        levels: Sequence[Sequence[str | PathLike[str]]],
        budget: int | str,
        storage: Tier | Mapping[int, Tier] = "auto",
        blocked: Iterable[Node] = (),
        removed: Iterable[Node] = (),
        verify: bool = True,
        pinned: Iterable[int | Node] = (),
    ) -> None:
        files = [[fspath(path) for path in paths] for paths in levels]
        pins = list(pinned)
        tiers = storage if isinstance(storage, Mapping) else {}
        others: Tier = "auto" if isinstance(storage, Mapping) else storage
        self._core = _core.Pager(
            files,
            parse_budget(budget),
            _tier(others),
            {level: _tier(tier) for level, tier in tiers.items()},
            list(blocked),
            list(removed),
            verify,
            [pin for pin in pins if not isinstance(pin, int)],
            [pin for pin in pins if isinstance(pin, int)],
        )

    def fetch(self, nodes: Iterable[Node], replacing: Lease | None = None) -> Lease:
        """A lease on the blocks of (level, node) pairs. Reads begin; the lease waits.

        Nodes that have no block are skipped. `replacing` gives up an old lease in the same step, so that a
        change of topic needs no double budget; when the fetch fails the old lease is as it was.

        Raises:
            NeverFitsError: the blocks exceed the whole budget; `required_bytes` would do.
            BusyError: other leases are in the way, or `replacing` is being read (a view, a running program).
            BlockedError: a node is blocked or removed.
            NotFoundError, InvalidArgumentError: no such level or node, or one named twice.
            CancelledError: `replacing` is released.
        """
        return self._core.fetch(list(nodes), replacing)

    def prefetch(self, nodes: Iterable[Node]) -> int:
        """Hints that the blocks may be fetched soon. Returns the bytes that will be read.

        They are read while nothing is read for a fetch, into free room and in place of blocks that have not been used
        for a while. Never in place of what is leased, pinned or warmer, and a fetch that needs the room takes it back.

        Raises:
            BlockedError, NotFoundError, InvalidArgumentError: as for `fetch`.
        """
        return self._core.prefetch(list(nodes))

    def shrink(self, size: int) -> int:
        """Evicts blocks that neither leases nor pins hold until `size` bytes are free again or none is left.

        For memory-pressure signals: the budget stays as it is. Returns the bytes freed.
        """
        return self._core.shrink(size)

    def stats(self) -> PagerStats:
        """Bytes, counts and stalls since the pager was opened."""
        return self._core.stats()

    def storage_report(self) -> list[StorageReport]:
        """Which backend reads each file, and why."""
        return self._core.storage_report()

    @property
    def layers(self) -> int:
        """The anchor's layers that carry memory."""
        return self._core.layers

    @property
    def d_model(self) -> int:
        """The anchor's width."""
        return self._core.d_model
