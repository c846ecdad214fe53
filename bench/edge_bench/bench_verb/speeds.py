"""Tokens a second: prefill (pp) and generation (tg), with memory off and fetched, every engine in every round."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edge_bench.remote import Remote

MEMORIES = ("none", "fetched")
WARM_UP_TOKENS = 16  # of generation
# Seconds between two turns: threads that spin on after a call, as ONNX Runtime's do, would take a core from whoever is
# next.
SETTLING = 0.3


@dataclass(frozen=True)
class Test:
    """pp512: a prompt of 512 tokens; tg128: 128 tokens one by one. Both begin with an empty context."""

    kind: str
    tokens: int

    @property
    def name(self) -> str:
        return f"{self.kind}{self.tokens}"


def measure_speeds(
    workers: Mapping[str, Remote], turns: Sequence[tuple[str, Test, str]], repetitions: int, warm_up: bool
) -> list[dict[str, Any]]:
    """A row for each of the turns, which are (worker, test, memory). REQUIRES that the tests fit the contexts.

    All take turns within a repetition, in an order that is drawn anew, so that a disturbed moment hits all of them.
    """
    seconds: dict[tuple[str, Test, str], list[float]] = {}
    order = random.Random(0)
    for turn in range(-1 if warm_up else 0, repetitions):
        for name, test, memory in order.sample(turns, len(turns)):
            decode = test.kind == "tg"
            tokens = min(test.tokens, WARM_UP_TOKENS) if decode and turn < 0 else test.tokens
            if len(workers) > 1:
                time.sleep(SETTLING)
            taken = workers[name].ask("speed", tokens=tokens, decode=decode, memory=memory)
            if turn >= 0:
                seconds.setdefault((name, test, memory), []).append(taken)
    return [
        row(name, test, memory, taken, seconds.get((name, test, "none")) if memory != "none" else None)
        for name, test, memory in turns
        for taken in [seconds[name, test, memory]]
    ]


def row(
    engine: str, test: Test, memory: str, seconds: Sequence[float], off: Sequence[float] | None
) -> dict[str, Any]:
    """llama-bench's names where it has one. off: the seconds without memory, of the same repetitions."""
    speeds = test.tokens / np.array(seconds)
    one = len(speeds) < 2
    return {
        "engine": engine,
        "test": test.name,
        "n_prompt": test.tokens if test.kind == "pp" else 0,
        "n_gen": test.tokens if test.kind == "tg" else 0,
        "memory": memory,
        "avg_ts": round(float(speeds.mean()), 3),
        "stddev_ts": 0.0 if one else round(float(speeds.std(ddof=1)), 3),
        "median_ts": round(float(np.median(speeds)), 3),
        "repetitions": len(speeds),
        "over_none": None if off is None else round(float(np.median(np.array(off) / np.array(seconds))), 4),
        "samples_ns": [round(1e9 * s) for s in seconds],
    }
