"""A scenario, and what comes of a trace in it: the real pager over simulated devices (bench/cpp/simulator.h)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_bench import _native
from edge_bench.banks import BankConfig
from edge_bench.simulate.prefetch import HINTERS
from edge_bench.simulate.profiles import RAM, Profile
from edge_bench.simulate.traces import Trace
from edge_runtime.errors import InvalidArgumentError

CHUNK = 1 << 20  # bytes of one read: the pager's default
PERCENTILES = (50, 90, 95, 99, 100)


@dataclass(frozen=True)
class Host:
    """The processor beside the device. What is not known is 0: nothing verified, no time lost."""

    verify_bytes_per_second: float = 0.0  # of one processor
    verifiers: int = 2
    fetch_s: float = 0.0  # of each fetch, whatever it reads
    prefill_s: float = 0.0  # of a prompt, in equal parts a layer: what it hides of a fetch is no stall


@dataclass(frozen=True)
class Scenario:
    """placement: of every level of the bank that has rows; None is pinned in RAM."""

    bank: BankConfig
    placement: dict[int, Profile | None]
    budget: int
    eviction: str = "fading"
    prefetch: str = "none"
    host: Host = field(default_factory=Host)
    one_level_at_a_time: bool = False

    def __post_init__(self) -> None:
        if sorted(self.placement) != levels_of(self.bank):
            raise InvalidArgumentError(f"the placement must name the levels {levels_of(self.bank)}")

    def configuration(self) -> dict[str, Any]:
        """Beside every result."""
        return {
            "bank": {
                "name": self.bank.name,
                "d_model": self.bank.d_model,
                "layers": self.bank.layers,
                "rows": list(self.bank.rows),
                "fanout": self.bank.fanout,
                "dtype": self.bank.dtype,
            },
            "placement": {level: RAM if p is None else p.key for level, p in self.placement.items()},
            "budget_bytes": self.budget,
            "eviction": self.eviction,
            "prefetch": self.prefetch,
            "verify_bytes_per_second": self.host.verify_bytes_per_second,
            "prefill_ms": self.host.prefill_s * 1e3,
        }


def levels_of(bank: BankConfig) -> list[int]:
    """Those that have rows."""
    return [level for level in bank.levels if bank.rows[level - 1] > 0]


def strides_of(bank: BankConfig) -> dict[int, int]:
    """Bytes of a block, by level."""
    return {level: bank.spec(level).stride for level in levels_of(bank)}


def smallest_budget(bank: BankConfig, placement: dict[int, Profile | None]) -> int:
    """What is pinned, and one path beside it."""
    strides = strides_of(bank)
    pinned = sum(bank.fanout**level * strides[level] for level, p in placement.items() if p is None)
    return int(pinned + sum(strides[level] for level, p in placement.items() if p is not None))


@dataclass(frozen=True)
class Outcome:
    """fetch_s, stall_s and bytes_read: one a prompt."""

    scenario: Scenario
    fetch_s: npt.NDArray[np.float64]
    stall_s: npt.NDArray[np.float64]
    bytes_read: npt.NDArray[np.int64]
    record: _native.SimulationRecord

    def summary(self, warm_up: float = 0.25) -> dict[str, Any]:
        """The first share of the prompts fills the memory and is not counted."""
        first = int(warm_up * len(self.fetch_s))
        fetch, stall = self.fetch_s[first:] * 1e3, self.stall_s[first:] * 1e3
        return {
            "prompts_counted": len(fetch),
            "fetch_ms": percentiles(fetch),
            "stall_ms": percentiles(stall),
            "bytes_per_prompt": round(float(self.bytes_read[first:].mean())),
            "hit_rate": {
                level["level"]: round(level["hits"] / max(1, level["hits"] + level["misses"]), 4)
                for level in self.record["levels"]
            },
            "peak_bytes": self.record["peak_bytes"],
            "budget_bytes": self.record["budget_bytes"],
            "load_bytes": self.record["load_bytes"],
            "requests": self.record["requests"],
            "prefetches": self.record["prefetches"],
            "prefetch_hits": self.record["prefetch_hits"],
            "leases_given_up": self.record["leases_given_up"],
        }


def percentiles(values: npt.NDArray[np.float64]) -> dict[str, float]:
    found = np.percentile(values, PERCENTILES)
    names = ("p50", "p90", "p95", "p99", "max")
    return {"mean": round(float(values.mean()), 4)} | {
        name: round(float(value), 4) for name, value in zip(names, found, strict=True)
    }


def simulate(scenario: Scenario, trace: Trace, slowdowns: npt.NDArray[np.float64] | None = None) -> Outcome:
    """Deterministic. `slowdowns`: of the devices, one a prompt.

    Raises NeverFitsError where the budget is too small for a path and what is pinned, InvalidArgumentError for
    scenarios that make no sense.
    """
    bank, host = scenario.bank, scenario.host
    devices: list[Profile] = []
    native_levels = []
    for level in levels_of(bank):
        # What is pinned is read once, from the slowest device that is there, before anything is timed.
        device = scenario.placement[level] or next(p for p in scenario.placement.values() if p is not None)
        if device not in devices:
            devices.append(device)
        native_levels.append(
            (
                level,
                bank.fanout,
                bank.dtype,
                bank.d_model,
                bank.rows[level - 1],
                bank.layers,
                devices.index(device),
            )
        )
    wanted = set(levels_of(bank))

    def nodes(path: tuple[int, ...]) -> list[tuple[int, int]]:
        return [(level, node) for level, node in enumerate(path, 1) if level in wanted]

    hint = HINTERS[scenario.prefetch]()
    numbers = {user: i for i, user in enumerate(sorted({visit.user for visit in trace.visits}))}
    prompts = []
    for i, visit in enumerate(trace.visits):
        hinted = list(dict.fromkeys(node for path in hint(visit) for node in nodes(path)))
        factor = 1.0 if slowdowns is None else float(slowdowns[i])
        prompts.append((numbers[visit.user], round(visit.pause_ms * 1e6), nodes(visit.path), hinted, factor))
    record = _native.simulate(
        native_levels,
        [device.native() for device in devices],
        scenario.budget,
        prompts,
        pinned_levels=[level for level, device in scenario.placement.items() if device is None],
        eviction=scenario.eviction,
        chunk_bytes=CHUNK,
        verify_bytes_per_second=host.verify_bytes_per_second,
        verifiers=host.verifiers,
        host_ns=round(host.fetch_s * 1e9),
        layer_compute_ns=round(host.prefill_s * 1e9 / bank.layers),
        one_level_at_a_time=scenario.one_level_at_a_time,
    )
    served = np.array(record["served"], np.int64).reshape(-1, 3)
    return Outcome(
        scenario,
        (served[:, 0] * 1e-9).astype(np.float64),
        (served[:, 1] * 1e-9).astype(np.float64),
        served[:, 2],
        record,
    )
