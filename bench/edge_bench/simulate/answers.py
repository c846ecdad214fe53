"""What a team asks of a device: latency, bytes and energy a day, wear, the smallest budget, and which policies."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from edge_bench import _native
from edge_bench.simulate.model import Outcome, Scenario, simulate, smallest_budget, strides_of
from edge_bench.simulate.prefetch import HINTERS
from edge_bench.simulate.traces import Trace
from edge_runtime.errors import InvalidArgumentError

WRITE_AMPLIFICATION = 2.0  # assumption: flash writes for each byte of an update
BUDGET_STEPS = 24


@dataclass(frozen=True)
class Day:
    prompts: float  # a day
    updated_bytes: float  # blocks replaced a day


def a_day(outcome: Outcome, day: Day) -> dict[str, Any]:
    """Bytes, energy and wear. Reading wears nothing: only updates do."""
    scenario = outcome.scenario
    prompts = len(outcome.fetch_s)
    read: dict[str, float] = {}
    energy = 0.0
    for level in outcome.record["levels"]:
        device = scenario.placement[level["level"]]
        if device is None:
            continue  # read once, when the program starts
        size = level["bytes_read"] / prompts * day.prompts
        read[device.key] = read.get(device.key, 0) + size
        energy += size * device.joules_per_byte
    strides = strides_of(scenario.bank)
    sizes = {level: scenario.bank.fanout**level * stride for level, stride in strides.items()}
    wear = {}
    for device in {p.key: p for p in scenario.placement.values() if p is not None}.values():
        share = sum(sizes[level] for level, p in scenario.placement.items() if p == device) / sum(
            sizes.values()
        )
        written = day.updated_bytes * share * WRITE_AMPLIFICATION
        life = device.capacity_bytes * device.write_cycles
        wear[device.key] = {"written_bytes": round(written), "life_share_a_year": written * 365 / life}
    return {
        "prompts": day.prompts,
        "read_bytes": {key: round(size) for key, size in read.items()},
        "energy_joules": round(energy, 4),
        "wear": wear,
    }


def budget_for(scenario: Scenario, trace: Trace, target_ms: float) -> dict[str, Any]:
    """The smallest budget whose p95 is within the target, from one path to 32 of them, and what each gives."""
    least = smallest_budget(scenario.bank, scenario.placement)
    path = sum(strides_of(scenario.bank).values())
    curve = []
    for step in range(BUDGET_STEPS):
        budget = least + round(path * (2 ** (5 * step / (BUDGET_STEPS - 1)) - 1))
        summary = simulate(replace(scenario, budget=budget), trace).summary()
        curve.append(
            {
                "budget_bytes": budget,
                "p50_ms": summary["fetch_ms"]["p50"],
                "p95_ms": summary["fetch_ms"]["p95"],
            }
        )
    good = [row["budget_bytes"] for row in curve if row["p95_ms"] <= target_ms]
    return {"target_ms": target_ms, "smallest_bytes": min(good, default=None), "curve": curve}


def policies(scenario: Scenario, trace: Trace) -> list[dict[str, Any]]:
    """Every eviction policy with every prefetch policy, the least mean latency first."""
    rows = []
    for eviction in _native.eviction_names():
        for prefetch in HINTERS:
            summary = simulate(replace(scenario, eviction=eviction, prefetch=prefetch), trace).summary()
            rows.append(
                {
                    "eviction": eviction,
                    "prefetch": prefetch,
                    "mean_ms": summary["fetch_ms"]["mean"],
                    "p95_ms": summary["fetch_ms"]["p95"],
                    "bytes_per_prompt": summary["bytes_per_prompt"],
                    "prefetches": summary["prefetches"],
                    "prefetch_hits": summary["prefetch_hits"],
                }
            )
    return sorted(rows, key=lambda row: row["mean_ms"])


def answer(
    scenario: Scenario, trace: Trace, day: Day, target_ms: float | None, compare: bool
) -> dict[str, Any]:
    """What the verb prints by default."""
    if day.prompts <= 0 or day.updated_bytes < 0:
        raise InvalidArgumentError("prompts a day must be above 0, and updates 0 or more")
    outcome = simulate(scenario, trace)
    result: dict[str, Any] = {**outcome.summary(), "day": a_day(outcome, day)}
    if target_ms is not None:
        result["budget"] = budget_for(scenario, trace, target_ms)
    if compare:
        result["policies"] = policies(scenario, trace)
    devices = {p.key: p for p in scenario.placement.values() if p is not None}.values()
    result["assumptions"] = [
        *(text for device in devices for text in device.assumptions),
        f"an update writes {WRITE_AMPLIFICATION:g} bytes of flash for each of its own",
        "blocks are updated in proportion to their bytes",
        "the first quarter of the prompts fills the memory and is not counted in latencies",
    ]
    return result
