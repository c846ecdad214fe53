"""Types of the native half: bench/cpp/python/module.cc."""

from collections.abc import Sequence
from typing import TypedDict

import numpy as np
import numpy.typing as npt

class RawReader:
    def __init__(
        self, paths: Sequence[str], engine: str, chunk_bytes: int, depth: int, fresh: bool, capacity: int
    ) -> None: ...
    def read(self, ranges: Sequence[tuple[int, int, int]]) -> npt.NDArray[np.uint8]: ...
    def forget(self) -> None: ...

class PagerProbe:
    def __init__(self, paths: Sequence[str], storage: str, budget: int, verify: bool, lanes: int) -> None: ...
    def fetch(self, nodes: Sequence[tuple[int, int]], count: int) -> list[int]: ...
    def shrink(self, bytes: int) -> int: ...

def page_cache_share(path: str, offset: int, length: int) -> float: ...
def has_io_uring() -> bool: ...
def read_passes(bytes: int, threads: int, rounds: int) -> list[float]: ...
def kernel_passes(handles: Sequence[int], threads: int, rounds: int) -> list[float]: ...

class SimulatedLevelStats(TypedDict):
    level: int
    hits: int
    misses: int
    bytes_read: int
    evictions: int

class SimulationRecord(TypedDict):
    served: list[tuple[int, int, int]]  # nanoseconds of fetch, of stall, bytes read; as the prompts
    levels: list[SimulatedLevelStats]
    budget_bytes: int
    peak_bytes: int
    bytes_read: int
    requests: int
    prefetches: int
    prefetch_hits: int
    load_bytes: int  # before the first prompt
    leases_given_up: int
    end_ns: int

def eviction_names() -> list[str]: ...
def simulate(
    levels: Sequence[
        tuple[int, int, str, int, int, int, int]
    ],  # level, fanout, dtype, d_model, rows, layers, device
    devices: Sequence[
        tuple[float, int, Sequence[tuple[int, int]]]
    ],  # bytes a second, lanes, (bytes, ns) by size
    budget: int,
    prompts: Sequence[
        tuple[int, int, Sequence[tuple[int, int]], Sequence[tuple[int, int]], float]
    ],  # user, pause in ns, path, hints, slowdown
    *,
    pinned_levels: Sequence[int],
    eviction: str,
    chunk_bytes: int,
    verify_bytes_per_second: float,
    verifiers: int,
    host_ns: int,
    layer_compute_ns: int,
    one_level_at_a_time: bool,
) -> SimulationRecord: ...
