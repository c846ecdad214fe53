"""A trace through the real pager over real files, in real time: what the simulator is compared with."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from edge_bench.banks import Bank
from edge_bench.simulate.profiles import Profile
from edge_bench.simulate.traces import Trace, Visit
from edge_runtime.pager import Pager, ThrottledDevice


def throttle(profile: Profile) -> ThrottledDevice:
    """The device in real time. Its latency is that of the largest requests: most of the pager's are."""
    return ThrottledDevice(profile.bytes_per_second, profile.latency[-1][1] * 1e6, profile.lanes)


def switches(bank: Bank, count: int, seed: int) -> Trace:
    """Prompts of one user that move in equal shares to a leaf beside the last one, elsewhere within its level-1
    branch, and to another branch, as far as the bank has blocks there."""
    k = bank.config.fanout
    random = np.random.default_rng(seed)
    leaf = bank.leaves[0]
    visits = []
    for _ in range(count):
        groups: Sequence[list[int]] = (
            [x for x in bank.leaves if x // k == leaf // k and x != leaf],
            [x for x in bank.leaves if x // k**2 == leaf // k**2 and x // k != leaf // k],
            [x for x in bank.leaves if x // k**2 != leaf // k**2],
        )
        group = next(g for g in (groups[int(random.integers(3))], groups[2]) if g)
        leaf = group[int(random.integers(len(group)))]
        visits.append(Visit(tuple(node for _, node in bank.config.path(leaf)), pause_ms=0))
    return Trace(f"switches, {count} prompts, seed {seed}", tuple(visits))


def replay(
    pager: Pager, trace: Trace, between: Callable[[int], None] = lambda _: None
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Seconds of fetch and wait, and bytes read, of each prompt. REQUIRES one user. `between` runs before each."""
    seconds, sizes = [], []
    lease = None
    for i, visit in enumerate(trace.visits):
        between(i)
        nodes = list(enumerate(visit.path, 1))
        start = time.perf_counter()
        lease = pager.fetch(nodes, lease)
        lease.wait()
        seconds.append(time.perf_counter() - start)
        sizes.append(lease.bytes_read)
    return np.array(seconds), np.array(sizes, np.int64)
