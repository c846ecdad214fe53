"""Figure 5 of Pouransari et al. 2025: one fetch out of a flat bank, out of a hierarchical one, and a change of topic.

One device is fitted, to one figure: the disk's bandwidth, so that the flat fetch takes the paper's 198 ms. The other
two figures are predicted, by the real pager on a simulated clock; then all of it is done with real files, slowed down.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from edge_bench.banks import HEADROOM, Bank, BankConfig, require_space
from edge_bench.simulate.model import Scenario, simulate, smallest_budget, strides_of
from edge_bench.simulate.profiles import Profile, find
from edge_bench.simulate.replay import throttle
from edge_bench.simulate.traces import Trace, Visit
from edge_runtime._core import LevelWriter
from edge_runtime.pager import Pager, Tier

PAPER_MS = {"flat_ms": 198.0, "hierarchical_ms": 38.0, "sibling_ms": 47.0}
BANK = BankConfig("410M", 1024, 24, (512, 128, 32), dtype="bf16")
FLAT = replace(BANK, name="410M-flat", rows=(sum(BANK.rows),))
# One copy of a block of 76 MB by numpy, median of 15, on a 2-core AMD EPYC virtual machine (5.3 to 12.6 GB/s).
RAM_BYTES_PER_SECOND = 7.8e9
# The path that is there before, one that shares its level-1 node, and one that shares nothing.
HERE, SIBLING, AWAY = (0, 0, 0), (0, 1, 16), (1, 16, 256)

ASSUMPTIONS = (
    "the bank is the 410M anchor's, (512, 128, 32) rows in bf16: 99 MB a path. The ratio of a sibling switch to a flat "
    "fetch depends on the rows alone (160 of 672; 80 of 336 for 160M); the fitted bandwidth is in proportion to bytes",
    "the flat bank has one level, whose blocks are of the size of a whole path",
    "the disk is the USB disk's profile with its bandwidth fitted to 198 ms; its latency and lanes are the profile's",
    "the flash is the profile of UFS 3.1, unchanged; the paper names no hardware",
    f"RAM is a device that copies at {RAM_BYTES_PER_SECOND / 1e9:g} GB/s, measured with numpy on one core",
    "hierarchical_ms reads one tier after the other and copies level 1 from RAM, as a reader without concurrency "
    "would; pager_ms is what this pager does, which reads the tiers at once and uses a pinned level where it lies",
    "the paths are cold except for what is said to be shared; nothing is verified; no other reader uses the devices",
)


def ram() -> Profile:
    return replace(
        find("ufs-3.1"),
        key="ram",
        name="RAM",
        bytes_per_second=RAM_BYTES_PER_SECOND,
        lanes=1,
        latency=((1, 1e-6),),
    )


def _last_ms(
    bank: BankConfig, placement: dict[int, Profile | None], paths: list[tuple[int, ...]], serial: bool = False
) -> float:
    """Of the last of the paths, fetched one after another by one user who holds one path."""
    trace = Trace("figure 5", tuple(Visit(path, pause_ms=0) for path in paths))
    scenario = Scenario(bank, placement, smallest_budget(bank, placement), one_level_at_a_time=serial)
    return float(simulate(scenario, trace).fetch_s[-1]) * 1e3


def flat_ms(disk: Profile) -> float:
    return _last_ms(FLAT, {1: disk}, [(1,), (0,)])


def fit(target_ms: float = PAPER_MS["flat_ms"]) -> Profile:
    """The disk on which the flat fetch takes so long."""
    disk = find("usb-disk")
    slow, fast = 1e6, 1e11
    for _ in range(60):
        middle = (slow * fast) ** 0.5
        if flat_ms(replace(disk, bytes_per_second=middle)) > target_ms:
            slow = middle
        else:
            fast = middle
    return replace(disk, key="figure5-disk", name="figure 5's disk", bytes_per_second=fast)


@dataclass(frozen=True)
class Tiers:
    disk: Profile
    flash: Profile
    ram: Profile

    def spread(self) -> dict[int, Profile | None]:
        """Level 1 copied from RAM, level 2 on flash, level 3 on the disk."""
        return {1: self.ram, 2: self.flash, 3: self.disk}

    def pinned(self) -> dict[int, Profile | None]:
        return {1: None, 2: self.flash, 3: self.disk}

    def all_on_disk(self) -> dict[int, Profile | None]:
        return dict.fromkeys((1, 2, 3), self.disk)


def predict(tiers: Tiers) -> dict[str, float]:
    return {
        "flat_ms": flat_ms(tiers.disk),
        "hierarchical_ms": _last_ms(BANK, tiers.spread(), [AWAY, HERE], serial=True),
        "pager_ms": _last_ms(BANK, tiers.pinned(), [AWAY, HERE]),
        "sibling_ms": _last_ms(BANK, tiers.all_on_disk(), [HERE, SIBLING]),
    }


def sensitivity(tiers: Tiers) -> list[dict[str, float]]:
    """hierarchical_ms over the two speeds that are assumed."""
    rows = []
    for flash in (0.75e9, 1e9, tiers.flash.bytes_per_second, 2e9, 4e9):
        for memory in (4e9, 8e9, 16e9):
            other = Tiers(
                tiers.disk,
                replace(tiers.flash, bytes_per_second=flash),
                replace(tiers.ram, bytes_per_second=memory),
            )
            ms = _last_ms(BANK, other.spread(), [AWAY, HERE], serial=True)
            rows.append(
                {"flash_gb_s": flash / 1e9, "ram_gb_s": memory / 1e9, "hierarchical_ms": round(ms, 2)}
            )
    return rows


def _timed(pager: Pager, paths: list[tuple[int, ...]], serial: bool = False) -> float:
    """Milliseconds of the last path; `serial`: level 1 is copied from where it lies, then the others in turn."""
    lease = None
    start = 0.0
    copy = np.ones(strides_of(BANK)[1] if serial else 0, np.uint8)
    for path in paths:
        nodes = list(enumerate(path, 1))
        start = time.perf_counter()
        for depth in range(1, len(nodes) + 1) if serial else (len(nodes),):
            lease = pager.fetch(nodes[:depth], lease)
            lease.wait()
            if serial and depth == 1:
                np.copyto(copy, lease.view(1))
    return (time.perf_counter() - start) * 1e3


def write_blank(bank: Bank) -> None:
    """Level files whose blocks are zeros: nothing is verified, and the devices are slower than any of them."""
    bank.directory.mkdir(parents=True, exist_ok=True)
    require_space(bank.directory, bank.blocks_bytes * HEADROOM, "figure 5 with real files")
    for level, path in zip(bank.config.levels, bank.paths, strict=True):
        spec = bank.config.spec(level)
        shape = (spec.layers, 3, spec.rows_per_block, spec.d_model)
        nodes = bank.nodes[level - 1]
        writer = LevelWriter(
            str(path),
            level,
            spec.fanout,
            spec.dtype,
            spec.d_model,
            spec.rows_per_block,
            spec.anchor_layers,
            len(nodes),
        )
        values = np.zeros(shape, np.float32)
        for node in nodes:
            writer.append(node, values)
        writer.finish()


def measure(tiers: Tiers, directory: Path, rounds: int, progress: Callable[[str], None]) -> dict[str, Any]:
    """The same with files of a few blocks, slowed down to the same devices. Needs 0.5 GB of disk."""
    banks = (
        Bank(FLAT, directory / "flat", [[0, 1]]),
        Bank(BANK, directory / "hierarchical", [[0, 1], [0, 1, 16], [0, 16, 256]]),
    )
    for bank in banks:
        progress(f"writing {bank.directory.name} files")
        write_blank(bank)
    flat, tree = ([[path] for path in bank.paths] for bank in banks)
    path_bytes = sum(strides_of(BANK).values())
    level1 = strides_of(BANK)[1]

    def devices(placement: dict[int, Profile | None]) -> dict[int, Tier]:
        made = {p: throttle(p) for p in placement.values() if p is not None}
        return {level: "direct" if p is None else ("direct", made[p]) for level, p in placement.items()}

    def pager(files: list[list[Path]], placement: dict[int, Profile | None], budget: int) -> Pager:
        pinned = [level for level, device in placement.items() if device is None]
        return Pager(files, budget, devices(placement), verify=False, pinned=pinned)

    def round_of() -> dict[str, float]:
        # What is pinned is there once another path has been fetched.
        spread = (tree, tiers.pinned(), path_bytes + level1)
        return {
            "flat_ms": _timed(pager(flat, {1: tiers.disk}, strides_of(FLAT)[1]), [(1,), (0,)]),
            "hierarchical_ms": _timed(pager(*spread), [HERE, AWAY, HERE], serial=True),
            "pager_ms": _timed(pager(*spread), [HERE, AWAY, HERE]),
            "sibling_ms": _timed(pager(tree, tiers.all_on_disk(), path_bytes), [HERE, SIBLING]),
        }

    times = []
    for i in range(rounds + 1):
        progress(f"real files, round {i} of {rounds}")
        times.append(round_of())
    counted = times[1:]
    return {
        key: {
            "median": round(median(t[key] for t in counted), 2),
            "min": round(min(t[key] for t in counted), 2),
            "max": round(max(t[key] for t in counted), 2),
        }
        for key in counted[0]
    } | {"rounds": rounds}


def run(directory: Path, rounds: int, progress: Callable[[str], None]) -> dict[str, Any]:
    """What `--figure5 --json` prints, without what record.py adds."""
    progress("fitting the disk to the flat figure")
    tiers = Tiers(fit(), find("ufs-3.1"), ram())
    predicted = predict(tiers)
    return {
        **{key: round(value, 2) for key, value in predicted.items()},
        "paper": PAPER_MS,
        "error": {key: round(predicted[key] / paper - 1, 4) for key, paper in PAPER_MS.items()},
        "fitted": {"figure": "flat_ms", "disk_bytes_per_second": round(tiers.disk.bytes_per_second)},
        "path_bytes": strides_of(FLAT)[1],
        "assumptions": [*ASSUMPTIONS, *tiers.disk.assumptions, *tiers.flash.assumptions],
        "sensitivity": sensitivity(tiers),
        "real_throttled": measure(tiers, directory, rounds, progress),
    }
