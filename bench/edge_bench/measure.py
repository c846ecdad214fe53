"""Timing: rounds in which every contestant has its turn, so that a disturbed moment hits all of them.

Cold means: the page cache of this system holds none of what is wanted. posix_fadvise(DONTNEED) drops the contestant's
files, and mincore, asked after they were opened and right before the clock starts, says whether it has. What a drive or
a hypervisor keeps is out of reach; so that it helps everybody alike, all read the same blocks in one round, and the
order of each round is drawn anew.
"""

from __future__ import annotations

import gc
import math
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edge_bench.contestants import Contestant, Target
from edge_bench.page_cache import cached_bytes, drop

COLD_CACHED_SHARE = 0.02  # of the bytes wanted: a mapping that has read its header keeps the pages around it

FEWEST = 3  # rounds


def device_bytes() -> int | None:
    """What this process has had read from devices so far; None where the system does not count it."""
    try:
        text = Path("/proc/self/io").read_text(encoding="ascii")
    except OSError:
        return None
    return next(int(line.split()[1]) for line in text.splitlines() if line.startswith("read_bytes:"))


@dataclass
class Times:
    """One contestant's measurements."""

    name: str
    wanted_bytes: int
    seconds: list[float] = field(default_factory=list)
    device_bytes: list[int] = field(default_factory=list)
    max_cached_bytes: int | None = None  # of what was wanted, when the clock started; where cold was asked

    @property
    def median(self) -> float:
        return float(np.median(self.seconds))

    def row(self) -> dict[str, Any]:
        """As it is reported."""
        q1, q3 = np.percentile(self.seconds, (25, 75))
        cold = self.max_cached_bytes is None or self.max_cached_bytes <= COLD_CACHED_SHARE * self.wanted_bytes
        read = float(np.median(self.device_bytes)) / self.wanted_bytes if self.device_bytes else None
        return {
            "name": self.name,
            "bytes": self.wanted_bytes,
            "rounds": len(self.seconds),
            "median_ms": round(self.median * 1e3, 3),
            "q1_ms": round(q1 * 1e3, 3),
            "q3_ms": round(q3 * 1e3, 3),
            "min_ms": round(min(self.seconds) * 1e3, 3),
            "spread_percent": round((q3 - q1) / self.median * 100, 1),
            "mb_per_s": round(self.wanted_bytes / self.median / 1e6, 1),
            "device_bytes_per_byte": None if read is None else round(read, 3),
            "max_cached_bytes": self.max_cached_bytes,
            "cold": cold if self.max_cached_bytes is not None else None,
        }


@dataclass(frozen=True)
class Ratio:
    """How many times as long one takes as another, pair by pair of the same round."""

    over: str
    median: float
    q1: float
    q3: float
    pairs: int

    @staticmethod
    def of(one: Times, other: Times) -> Ratio:
        """`one`'s time over `other`'s: the factor by which `other` is faster."""
        ratios = np.array(one.seconds) / np.array(other.seconds)
        q1, median, q3 = np.percentile(ratios, (25, 50, 75))
        return Ratio(one.name, round(float(median), 4), round(float(q1), 4), round(float(q3), 4), len(ratios))

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def timed(contestant: Contestant, target: Target, times: Times, cold: bool) -> None:
    """One turn."""
    if cold:
        drop(contestant.files)
    else:
        contestant.prepare(target)
        contestant.read(target)  # its blocks are in the page cache now, whoever had them before
        contestant.forget()
    contestant.prepare(target)
    if cold:
        drop(contestant.files)  # what the system has read ahead meanwhile
        cached = cached_bytes(contestant.ranges(target))
        times.max_cached_bytes = max(times.max_cached_bytes or 0, cached)
    before = device_bytes()
    start = time.perf_counter()
    contestant.read(target)
    times.seconds.append(time.perf_counter() - start)
    after = device_bytes()
    if before is not None and after is not None:
        times.device_bytes.append(after - before)
    contestant.forget()


def interleave(
    contestants: Sequence[Contestant],
    targets: Sequence[Target],
    rounds: int,
    cold: bool,
    limit_s: float = math.inf,
) -> Mapping[str, Times]:
    """The times of each contestant, by name, over `rounds` rounds; a first one is not counted.

    No round begins after `limit_s` seconds, but for the FEWEST that a median takes. REQUIRES distinct names, and
    targets of equal size.
    """
    times = {c.name: Times(c.name, targets[0].bytes(c.bank)) for c in contestants}
    assert len(times) == len(contestants)
    order = random.Random(0)
    end = time.monotonic() + limit_s
    gc.collect()
    gc.disable()
    try:
        for i in range(-1, rounds):
            if i >= FEWEST and time.monotonic() > end:
                break
            target = targets[i % len(targets)]
            # Not a rotation: whoever always came after the same one would be measured with what that one leaves behind.
            for contestant in order.sample(contestants, len(contestants)):
                kept = times[contestant.name] if i >= 0 else Times("", 1)
                timed(contestant, target, kept, cold)
    finally:
        gc.enable()
    return times
