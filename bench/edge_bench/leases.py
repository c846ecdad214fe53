"""What is not a cold fetch of a whole path: leases on blocks that are there, and switches to a sibling."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from edge_bench._native import PagerProbe
from edge_bench.banks import Bank
from edge_bench.contestants import EVERYTHING, Target
from edge_bench.page_cache import drop
from edge_runtime.pager import Pager

WARM_UP = 200


def _microseconds(nanoseconds: list[int]) -> dict[str, float]:
    median, p90, p99 = np.percentile(np.array(nanoseconds) / 1e3, (50, 90, 99))
    return {"median": round(float(median), 3), "p90": round(float(p90), 3), "p99": round(float(p99), 3)}


def warm_leases(bank: Bank, count: int) -> dict[str, Any]:
    """Microseconds of fetch, wait and release when every block is resident: from C++, and through Python."""
    target = Target.of(bank, bank.leaves[0])
    paths = [str(path) for path in bank.paths]
    probe = PagerProbe(paths, "auto", bank.config.path_bytes, True, 4)
    cpp = probe.fetch(target.nodes, WARM_UP + count)[WARM_UP:]
    del probe

    pager = Pager([[path] for path in paths], bank.config.path_bytes)
    python = []
    for _ in range(WARM_UP + count):
        start = time.perf_counter_ns()
        lease = pager.fetch(target.nodes)
        lease.wait()
        lease.release()
        python.append(time.perf_counter_ns() - start)
    return {"leases": count, "python_us": _microseconds(python[WARM_UP:]), "cpp_us": _microseconds(cpp)}


@dataclass(frozen=True)
class Switch:
    """A change of topic: from one leaf to another one, which shares the path down to some level."""

    name: str
    first_level: int  # that differs
    pairs: list[tuple[int, int]]


def switches(bank: Bank) -> list[Switch]:
    """Within a level-2 branch (level 3 differs) and within a level-1 branch (levels 2 and 3 differ)."""
    k = bank.config.fanout
    leaves = set(bank.leaves)
    starts = [leaf for leaf in bank.leaves if leaf % (k * k) == 0]
    return [
        Switch("level2_branch", 3, [(leaf, leaf + 1) for leaf in starts if leaf + 1 in leaves]),
        Switch("level1_branch", 2, [(leaf, leaf + k) for leaf in starts if leaf + k in leaves]),
    ]


def sibling_switches(bank: Bank) -> dict[str, Any]:
    """Bytes that a cold switch reads, and its milliseconds, under a budget of exactly one path.

    `bytes` is what the storages completed, not what the pager meant to read. Where switches of one kind read different
    amounts, the largest is given and `exact` is false.
    """
    record: dict[str, Any] = {"budget_bytes": bank.config.path_bytes, "exact": True, "bytes": {}, "ms": {}}
    expected = {}
    pager = Pager([[path] for path in bank.paths], bank.config.path_bytes)
    for switch in switches(bank):
        amounts, milliseconds = [], []
        for one, other in switch.pairs:
            pager.shrink(EVERYTHING)
            drop(bank.paths)
            old = pager.fetch(Target.of(bank, one).nodes)
            old.wait()
            before = pager.stats()["bytes_read"]
            start = time.perf_counter()
            lease = pager.fetch(Target.of(bank, other).nodes, replacing=old)
            lease.wait()
            milliseconds.append((time.perf_counter() - start) * 1e3)
            amounts.append(pager.stats()["bytes_read"] - before)
            record["exact"] &= lease.bytes_read == amounts[-1]
            lease.release()
        expected[switch.name] = sum(bank.config.strides[switch.first_level - 1 :])
        record["bytes"][switch.name] = max(amounts)
        record["ms"][switch.name] = round(float(np.median(milliseconds)), 3)
        record["exact"] &= set(amounts) == {expected[switch.name]}
    return record | {"expected": expected}
