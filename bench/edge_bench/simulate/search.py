"""Which bank fits a device: rows a level, dtype and placement, with the Pareto front of the memory that a prompt gets
against the time that it takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from edge_bench.banks import PAPER, BankConfig
from edge_bench.simulate.model import Host, Scenario, levels_of, simulate, smallest_budget, strides_of
from edge_bench.simulate.profiles import RAM, Profile
from edge_bench.simulate.traces import generate
from edge_runtime.errors import InvalidArgumentError

DTYPES = ("f16", "i8", "i4")
RATIOS = (
    (1, 0, 0, 0),
    (4, 1, 0, 0),
    (4, 1, 0.25, 0),
    (1, 1, 0, 0),
    (1, 1, 1, 0),
    (2, 1, 1, 0),
    (16, 4, 1, 0.25),
    (1, 1, 1, 1),
)
SIZES = (16, 32, 64, 128, 256, 512, 768)  # rows of the largest block
DEPTH = 4
FEWEST_ROWS = 4


@dataclass(frozen=True)
class Limits:
    dram_bytes: int  # of the pager: what is pinned, leased and kept
    deadline_ms: float  # of 95% of the fetches
    flash_bytes: float


def configurations(anchor: str) -> Iterator[BankConfig]:
    base = PAPER[anchor]
    seen = set()
    for ratio in RATIOS:
        for size in SIZES:
            rows = tuple(int(size * share / max(ratio)) for share in ratio)
            if rows in seen or any(0 < r < FEWEST_ROWS for r in rows):
                continue
            seen.add(rows)
            for dtype in DTYPES:
                yield replace(base, rows=rows, dtype=dtype)


def evaluate(
    bank: BankConfig, device: Profile, pin: bool, limits: Limits, prompts: int, seed: int
) -> dict[str, Any]:
    """One candidate; p95_ms is None where it does not fit."""
    levels = levels_of(bank)
    placement: dict[int, Profile | None] = dict.fromkeys(levels, device)
    if pin:
        placement[levels[0]] = None
    strides = strides_of(bank)
    per_row = 3 * bank.layers * bank.d_model
    flash = sum(bank.fanout**level * stride for level, stride in strides.items())
    row: dict[str, Any] = {
        "rows": list(bank.rows),
        "dtype": bank.dtype,
        "placement": {level: RAM if p is None else p.key for level, p in placement.items()},
        "fetched_parameters": sum(bank.rows) * per_row,
        "bank_parameters": sum(r * bank.fanout**level for level, r in enumerate(bank.rows, 1)) * per_row,
        "flash_bytes": flash,
        "needed_dram_bytes": smallest_budget(bank, placement),
        "p50_ms": None,
        "p95_ms": None,
    }
    fits = row["needed_dram_bytes"] <= limits.dram_bytes and flash <= limits.flash_bytes
    if fits:
        trace = generate("drift", prompts, seed, bank.fanout, DEPTH)
        latency = simulate(Scenario(bank, placement, limits.dram_bytes, host=Host()), trace).summary()[
            "fetch_ms"
        ]
        row |= {"p50_ms": latency["p50"], "p95_ms": latency["p95"]}
    return row | {"feasible": fits and row["p95_ms"] <= limits.deadline_ms, "pareto": False}


def mark_front(rows: list[dict[str, Any]]) -> None:
    """Those that no other one beats in both: more fetched parameters, less time."""
    best = float("inf")
    timed = [row for row in rows if row["p95_ms"] is not None]
    for row in sorted(timed, key=lambda r: (-r["fetched_parameters"], r["p95_ms"])):
        if row["p95_ms"] < best:
            best = row["p95_ms"]
            row["pareto"] = True


def run(
    anchor: str,
    device: Profile,
    limits: Limits,
    prompts: int,
    seed: int,
    progress: Callable[[int, int], None],
) -> dict[str, Any]:
    """All candidates; `best` has the most fetched parameters within the limits, and of equals the larger bank."""
    if limits.deadline_ms <= 0 or limits.dram_bytes <= 0:
        raise InvalidArgumentError("the deadline and the memory must be above 0")
    candidates = [
        (bank, pin)
        for bank in configurations(anchor)
        for pin in (False, True)
        if sum(bank.rows[1:]) or not pin
    ]
    rows = []
    for i, (bank, pin) in enumerate(candidates):
        progress(i, len(candidates))
        rows.append(evaluate(bank, device, pin, limits, prompts, seed))
    mark_front(rows)
    feasible = [row for row in rows if row["feasible"]]
    best = max(
        feasible, key=lambda r: (r["fetched_parameters"], r["bank_parameters"], -r["p95_ms"]), default=None
    )
    return {
        "best": best,
        "front": sorted((r for r in rows if r["pareto"]), key=lambda r: r["p95_ms"]),
        "candidates": rows,
        "limits": {
            "dram_bytes": limits.dram_bytes,
            "deadline_ms": limits.deadline_ms,
            "flash_bytes": limits.flash_bytes,
        },
        "assumptions": [
            "more fetched parameters are better, and of equally many a larger bank: what quality they bring is not "
            "simulated (Pouransari et al. 2025: a tenth of the anchor's parameters works best)",
            "a dtype changes bytes alone: what i4 costs in quality is not simulated",
            "the trace is a conversation (topic drift); its first quarter is not counted",
            *device.assumptions,
        ],
    }
