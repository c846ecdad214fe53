"""The measurements of one anchor's bank, in order: raw sweep, cold, warm, leases and switches, blocks, lanes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edge_bench._native import has_io_uring
from edge_bench.banks import Bank
from edge_bench.contestants import (
    Contestant,
    PagerContestant,
    ProbeContestant,
    RawContestant,
    RawSetting,
    Target,
)
from edge_bench.file_readers import MemmapContestant, level_array, make_peers
from edge_bench.leases import sibling_switches, warm_leases
from edge_bench.measure import Ratio, Times, interleave
from edge_bench.page_cache import warm
from edge_runtime.errors import StorageError
from edge_runtime.pager import StorageKind

KIB = 1024
STORAGES: tuple[StorageKind, ...] = ("auto", "direct", "mapped")
OURS, UNVERIFIED, EMPTY = "pager auto", "pager auto, unverified", "pager auto, from empty"


@dataclass(frozen=True)
class Plan:
    """How much to measure."""

    configs: tuple[str, ...]
    chunks: tuple[int, ...]  # bytes of one read, swept for the raw reader
    depths: tuple[int, ...]
    sweep_rounds: int
    finalists: int  # settings of the raw reader measured beside the pager: the best is the baseline
    unverified: tuple[StorageKind, ...]  # kinds measured without verification, too; `auto` among them
    rounds: int
    limit_s: float  # of each of: the sweep, cold, warm; a slow machine gets fewer rounds
    leases: int
    blocks: bool  # single blocks of each level, too
    lanes: tuple[int, ...]  # of the pager: threads, and depth of its ring


QUICK = Plan(
    configs=("160M",),
    chunks=tuple(n * KIB for n in (1024, 2048, 4096)),
    depths=(2, 4, 8, 16),
    sweep_rounds=4,
    finalists=2,
    unverified=("auto",),
    rounds=15,
    limit_s=14,
    leases=2000,
    blocks=False,
    lanes=(),
)
FULL = Plan(
    configs=("160M", "410M", "1.4B"),
    chunks=tuple(n * KIB for n in (128, 256, 512, 1024, 2048, 4096, 8192)),
    depths=(1, 2, 4, 8, 16, 32),
    sweep_rounds=9,
    finalists=3,
    unverified=STORAGES,
    rounds=25,
    limit_s=math.inf,
    leases=10000,
    blocks=True,
    lanes=(1, 2, 4, 8),
)


def raw_sweep(bank: Bank, targets: Sequence[Target], plan: Plan) -> list[tuple[RawSetting, Times]]:
    """Every setting of the raw reader, the fastest first."""
    engines = ("pread", "io_uring") if has_io_uring() else ("pread",)
    settings = [
        RawSetting(e, chunk, depth) for e in engines for chunk in plan.chunks for depth in plan.depths
    ]
    contestants = [RawContestant(bank, s) for s in settings]
    times = interleave(contestants, targets, plan.sweep_rounds, cold=True, limit_s=plan.limit_s)
    return sorted(((s, times[str(s)]) for s in settings), key=lambda pair: pair[1].median)


def pagers(bank: Bank, plan: Plan) -> list[PagerContestant]:
    verified = [PagerContestant(bank, storage) for storage in STORAGES]
    unverified = [PagerContestant(bank, storage, verify=False) for storage in plan.unverified]
    return [*verified, *unverified, PagerContestant(bank, "auto", empty=True)]


def require_right_bytes(contestants: Sequence[Contestant], target: Target) -> None:
    """Nobody is fast by reading something else. StorageError."""
    wanted = [
        np.array(level_array(contestants[0].bank, level - 1)[row])
        for (level, _), row in zip(target.nodes, target.rows, strict=True)
    ]
    for contestant in contestants:
        contestant.prepare(target)
        contestant.read(target)
        right = all(np.array_equal(a, b) for a, b in zip(contestant.blocks(), wanted, strict=True))
        contestant.forget()
        if not right:
            raise StorageError(f"{contestant.name}: read other bytes than the level files hold")


def fastest(times: Mapping[str, Times], names: Sequence[str]) -> Times:
    return min((times[name] for name in names), key=lambda t: t.median)


def cold_ratios(times: Mapping[str, Times], raw: Sequence[str], fresh: Sequence[str]) -> dict[str, Ratio]:
    """The headline: how many times the bandwidth of each other one the pager has, and what verification costs."""
    ours = times[OURS]
    safetensors = [name for name in times if name.startswith("safetensors")]
    return {
        "cold_over_raw": Ratio.of(fastest(times, raw), ours),
        "cold_over_raw_fresh": Ratio.of(fastest(times, fresh), times[EMPTY]),
        "cold_over_memmap": Ratio.of(times["np.memmap copy"], ours),
        "cold_over_mmap_ninja": Ratio.of(times["mmap-ninja copy"], ours),
        "cold_over_safetensors": Ratio.of(fastest(times, safetensors), ours),
        "cold_over_torch_load": Ratio.of(times["torch.load(mmap=True)"], ours),
        "verify_share": Ratio.of(ours, times[UNVERIFIED]),
    }


def backends(contestants: Sequence[PagerContestant]) -> dict[str, dict[str, str]]:
    """What reads the first level's file of each, and why."""
    reports = {c.name: c.pager.storage_report()[0] for c in contestants}
    return {name: {"backend": r["backend"], "reason": r["reason"]} for name, r in reports.items()}


def single_blocks(bank: Bank, plan: Plan, raw: RawSetting) -> dict[str, Any]:
    """Cold bandwidth at the block size of each level alone."""
    record = {}
    for level in bank.config.levels:
        targets = [Target.of(bank, leaf, range(level, level + 1)) for leaf in bank.leaves]
        contestants = [PagerContestant(bank, "auto"), RawContestant(bank, raw), MemmapContestant(bank)]
        times = interleave(contestants, targets, plan.rounds, cold=True)
        record[f"level{level}"] = [times[c.name].row() for c in contestants]
    return record


def lanes(bank: Bank, targets: Sequence[Target], plan: Plan) -> list[dict[str, Any]]:
    """Cold bandwidth of the pager by the number of its lanes, without Python in between."""
    kinds: tuple[StorageKind, ...] = ("direct", "mapped")
    probes = [ProbeContestant(bank, kind, count) for kind in kinds for count in plan.lanes]
    times = interleave(probes, targets, plan.rounds, cold=True)
    return [times[p.name].row() | {"storage": p.storage, "lanes": p.lanes} for p in probes]


def run_config(bank: Bank, plan: Plan, say: Callable[[str], None]) -> dict[str, Any]:
    """All measurements of one bank, as they are reported."""
    config = bank.config
    say(f"{config.name}: files for the peers")
    peers = make_peers(bank)
    targets = [Target.of(bank, leaf) for leaf in bank.leaves]

    say(f"{config.name}: sweeping the raw reader")
    sweep = raw_sweep(bank, targets, plan)
    finalists = [setting for setting, _ in sweep[: plan.finalists]]
    raws = [RawContestant(bank, s) for s in finalists]
    fresh = [RawContestant(bank, RawSetting(s.engine, s.chunk_bytes, s.depth, True)) for s in finalists]
    ours = pagers(bank, plan)
    contestants: list[Contestant] = [*ours, *raws, *fresh, *peers]
    require_right_bytes(contestants, targets[0])
    for contestant in ours:
        contestant.close()

    say(f"{config.name}: cold, {len(contestants)} readers")
    cold = interleave(contestants, targets, plan.rounds, cold=True, limit_s=plan.limit_s)
    ratios = cold_ratios(cold, [c.name for c in raws], [c.name for c in fresh])
    record: dict[str, Any] = {
        "block_bytes": dict(zip((f"level{n}" for n in config.levels), config.strides, strict=True)),
        "path_bytes": config.path_bytes,
        "bank_bytes": bank.blocks_bytes,
        "raw_sweep": [
            {"engine": s.engine, "chunk_bytes": s.chunk_bytes, "depth": s.depth} | t.row() for s, t in sweep
        ],
        "cold": [cold[c.name].row() for c in contestants],
        "ratios": {key: ratio.to_json() for key, ratio in ratios.items()},
        "backends": {"cold": backends(ours)},
    }

    say(f"{config.name}: warm, leases, switches")
    warming: list[Contestant] = [*ours, *peers]
    for contestant in ours:
        contestant.close()  # `auto` chooses anew, for files that are in the page cache
    warm({path for contestant in warming for path in contestant.files})
    cached = interleave(warming, targets, plan.rounds, cold=False, limit_s=plan.limit_s)
    record["warm"] = [cached[c.name].row() for c in warming]
    record["backends"]["warm"] = backends(ours)
    for contestant in ours:
        contestant.close()
    record["warm_lease"] = warm_leases(bank, plan.leases)
    record["sibling_switch"] = sibling_switches(bank)

    if plan.blocks:
        say(f"{config.name}: single blocks")
        record["single_blocks"] = single_blocks(bank, plan, finalists[0])
    if plan.lanes:
        say(f"{config.name}: lanes")
        record["lanes"] = lanes(bank, targets, plan)
    return record


def headline(config: dict[str, Any]) -> dict[str, Any]:
    """The keys that others rely on, of one bank's record."""
    switch = config["sibling_switch"]
    values = {key: ratio["median"] for key, ratio in config["ratios"].items()}
    return values | {
        "warm_lease_us": config["warm_lease"]["python_us"]["median"],
        "warm_lease_cpp_us": config["warm_lease"]["cpp_us"]["median"],
        "sibling_switch_bytes": {**switch["bytes"], "expected": switch["expected"], "exact": switch["exact"]},
    }
