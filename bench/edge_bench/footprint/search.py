"""The smallest limit under which answers are fast enough, by bisection."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from edge_bench.limited import Trial, best
from edge_runtime.errors import EdgeRuntimeError, UnsupportedError

MIB = 2**20
BESIDE = (1.1, 1.25, 1.5, 2.0)  # times the smallest limit: tried for the curve
Attempt = Callable[[int | None], Trial]


@dataclass
class Search:
    """What was tried. `smallest` is the trial under the smallest limit that does."""

    unrestricted: Trial
    smallest: Trial
    trials: list[Trial] = field(default_factory=list)


def search(
    attempt: Attempt,
    fraction: float,
    say: Callable[[str], None],
    beside: Sequence[float] = BESIDE,
    unit: str = "requests/s",
    tolerance: float = 0.01,
) -> Search:
    """Bisects to `tolerance` of the limit, or 1 MiB. unit: of the trials' speeds, as it is said.

    A limit that was too slow is tried again, as the machine may have been busy; one that was killed is not.

    Raises:
        EdgeRuntimeError: the bundle does not answer without a limit either.
        UnsupportedError: no control group can be made, or it does not tell its peak.
    """
    unrestricted = best([attempt(None), attempt(None)])
    if unrestricted.requests_per_s == 0:
        raise EdgeRuntimeError(f"it does not answer without a limit either: {unrestricted.outcome}")
    if unrestricted.peak_bytes is None:
        raise UnsupportedError("the control group does not tell its peak: it needs Linux 5.19 or newer")
    wanted = fraction * unrestricted.requests_per_s
    say(
        f"no limit: {unrestricted.requests_per_s:,.1f} {unit}, {unrestricted.peak_bytes / MIB:,.1f} MiB charged"
    )
    trials: list[Trial] = []

    def tried(limit: int) -> Trial:
        found = attempt(limit)
        if 0 < found.requests_per_s < wanted:
            found = best([found, attempt(limit)])
        trials.append(found)
        say(f"{limit / MIB:,.1f} MiB: {found.requests_per_s:,.1f} {unit}, {found.outcome}")
        return found

    low, high = 0, unrestricted.peak_bytes
    smallest = tried(high)
    while smallest.requests_per_s < wanted:
        low, high = high, 2 * high
        if high > 8 * unrestricted.peak_bytes:
            raise EdgeRuntimeError("no limit gives a steady speed: the machine is too busy to measure")
        smallest = tried(high)
    while high - low > max(MIB, tolerance * high):
        found = tried((low + high) // 2)
        if found.requests_per_s >= wanted:
            high, smallest = (low + high) // 2, found
        else:
            low = (low + high) // 2
    for factor in beside:
        tried(round(factor * high))
    return Search(unrestricted, smallest, sorted(trials, key=lambda trial: trial.limit_bytes or 0))
