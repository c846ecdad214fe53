"""What the rows come to: our engine over each peer, and paging over the fastest way to swap an adapter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from edge_bench.peers.contenders import Contender

OURS = "native"
EQUAL_BYTES_BITS = 8
"""Adapters have a byte a parameter, so they are compared with the int8 path."""

COMPARED = ("preloaded", "cold")
"""States; what is resident on both sides is swapped within the noise of a token."""


def _times(ours: Sequence[float], other: Sequence[float]) -> dict[str, float]:
    """How many times as fast we are: the median over the pairs of one round, and its quartiles."""
    q1, median, q3 = np.percentile(np.array(other) / np.array(ours), (25, 50, 75))
    return {"median": round(float(median), 3), "q1": round(float(q1), 3), "q3": round(float(q3), 3)}


def ratios(
    contenders: Sequence[Contender],
    speeds: Mapping[tuple[str, str, str], Sequence[float]],
    decode: str,
    swaps: Mapping[tuple[str, str], Sequence[float]],
) -> list[dict[str, Any]]:
    """Rows (ours, other, what, median, q1, q3); none where our engine or a peer did not take part."""
    found: list[dict[str, Any]] = []
    for ours in (one for one in contenders if one.peer == OURS):
        for other in (one for one in contenders if one.peer != OURS and one.bits == ours.bits):
            if other.swaps_only:
                continue
            names = {"ours": ours.name, "other": other.name}
            tests = sorted({test for name, test, _ in speeds if name == ours.name and test != decode})
            for test in () if other.dense else tests:
                pair = speeds[ours.name, test, "none"], speeds[other.name, test, "none"]
                found.append(names | {"what": f"prefill, {test}"} | _times(*pair))
            kinds = (("none", "decode"), ("fetched", "decode, ours with memory"))
            for memory, what in kinds[1:] if other.dense else kinds:
                pair = speeds[ours.name, decode, memory], speeds[other.name, decode, "none"]
                found.append(names | {"what": what} | _times(*pair))
    return found + _swap_ratios(contenders, swaps)


def _swap_ratios(
    contenders: Sequence[Contender], swaps: Mapping[tuple[str, str], Sequence[float]]
) -> list[dict[str, Any]]:
    ours = next((one for one in contenders if one.peer == OURS and one.bits == EQUAL_BYTES_BITS), None)
    others = [one for one in contenders if one.peer != OURS and one.swap is not None]
    if ours is None or not others:
        return []
    found = []
    for state in COMPARED:
        for other in others:
            names = {"ours": ours.name, "other": other.name, "what": f"swap, {state}"}
            found.append(names | _times(swaps[ours.name, state], swaps[other.name, state]))
    return found
