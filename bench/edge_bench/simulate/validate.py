"""Predicted against measured: the same trace through the simulator and, in real time, through the real pager.

Two kinds of devices: files slowed down to a profile (Throttled), where the host's own overhead is calibrated with one
device and the others are predicted; and this machine's disk, which raw O_DIRECT reads of iobench's reader calibrate in
the same minutes.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import xxhash

from edge_bench._native import RawReader
from edge_bench.banks import PAPER, Bank, make_bank, sample_nodes
from edge_bench.simulate.model import CHUNK, Host, Scenario, simulate
from edge_bench.simulate.profiles import Profile, find
from edge_bench.simulate.replay import replay, switches, throttle
from edge_bench.simulate.traces import Trace
from edge_runtime.pager import Pager, Tier

THROTTLED = ("ufs-3.1", "usb-disk", "emmc-5.1", "sd-card")
CALIBRATES_HOST = "usb-disk"
PROMPTS = 90
LANES = 6  # the pager's threads, as edge_runtime/storage.h has it
SIZES = (65536, 262144, CHUNK)  # of single requests
CALIBRATIONS = 15  # one every so many prompts


@dataclass(frozen=True)
class Case:
    """Prompts of one trace on one device that read equally many bytes."""

    device: str
    bytes: int
    prompts: int
    measured_ms: tuple[float, float]  # median and p95
    predicted_ms: tuple[float, float]

    @property
    def errors(self) -> tuple[float, float]:
        """Of median and p95, relative, signed."""
        return (
            self.predicted_ms[0] / self.measured_ms[0] - 1,
            self.predicted_ms[1] / self.measured_ms[1] - 1,
        )

    def row(self) -> dict[str, Any]:
        names = ("median", "p95")
        return {
            "device": self.device,
            "bytes": self.bytes,
            "prompts": self.prompts,
            "measured_ms": dict(zip(names, np.round(self.measured_ms, 3).tolist(), strict=True)),
            "predicted_ms": dict(zip(names, np.round(self.predicted_ms, 3).tolist(), strict=True)),
            "error": dict(zip(names, np.round(self.errors, 4).tolist(), strict=True)),
        }


def cases(
    device: str,
    sizes: npt.NDArray[np.int64],
    measured: npt.NDArray[np.float64],
    predicted: npt.NDArray[np.float64],
) -> list[Case]:
    """One for each number of bytes that is read. The first prompt finds a memory of another state: not counted."""
    found = []
    for size in sorted(set(sizes[1:].tolist()) - {0}):
        chosen = np.flatnonzero(sizes == size)
        chosen = chosen[chosen > 0]
        times = (
            (float(np.median(t[chosen])) * 1e3, float(np.percentile(t[chosen], 95)) * 1e3)
            for t in (measured, predicted)
        )
        found.append(Case(device, int(size), len(chosen), *times))
    return found


def verify_rate() -> float:
    """Bytes a second that one processor checks, in pieces of a layer."""
    data = np.random.default_rng(0).bytes(400_000)
    rates = []
    for _ in range(200):
        start = time.perf_counter()
        xxhash.xxh3_64_intdigest(data)
        rates.append(len(data) / (time.perf_counter() - start))
    return float(np.median(rates))


class Disk:
    """Raw reads of one path, at once and one request at a time; the profile that they make of this machine's disk."""

    def __init__(self, bank: Bank) -> None:
        self.bank = bank
        paths = [str(path) for path in bank.paths]
        capacity = bank.config.path_bytes
        self.bursts = RawReader(paths, "pread", CHUNK, LANES, False, capacity)
        self.singles = {size: RawReader(paths, "pread", size, 1, False, capacity) for size in SIZES}
        self.burst_s: list[float] = []
        self.single_s: dict[int, list[float]] = {size: [] for size in SIZES}

    def _timed(self, reader: RawReader, leaf: int, levels: tuple[int, ...]) -> tuple[float, int]:
        rows, strides = self.bank.rows(leaf), self.bank.config.strides
        ranges = [(i - 1, self.bank.block_offset(i, rows[i - 1]), strides[i - 1]) for i in levels]
        start = time.perf_counter()
        reader.read(ranges)
        return time.perf_counter() - start, sum(length for *_, length in ranges)

    def calibrate(self, leaf: int) -> None:
        for _ in range(3):
            self.burst_s.append(self._timed(self.bursts, leaf, (1, 2, 3))[0])
        for size, reader in self.singles.items():
            seconds, total = self._timed(reader, leaf, (2,))
            self.single_s[size].append(seconds / (total / size))

    def profile(self) -> Profile:
        rate = self.bank.config.path_bytes / float(np.median(self.burst_s))
        latency = tuple(
            (size, max(0.0, float(np.median(times)) - size / rate)) for size, times in self.single_s.items()
        )
        return replace(
            find("ufs-4.0"),
            key="disk",
            name="this machine's disk",
            bytes_per_second=rate,
            lanes=LANES,
            latency=latency,
        )

    def slowdowns(self, count: int, seed: int) -> npt.NDArray[np.float64]:
        """How much longer than the median a burst took: drawn anew for each prompt."""
        factors = np.array(self.burst_s) / np.median(self.burst_s)
        return np.random.default_rng(seed).choice(factors, count)


def _scenario(bank: Bank, profile: Profile, host: Host) -> Scenario:
    return Scenario(
        bank.config, dict.fromkeys(bank.config.levels, profile), bank.config.path_bytes, host=host
    )


def _real(
    bank: Bank, tier: Tier, trace: Trace, between: Callable[[int], None] = lambda _: None
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    return replay(Pager([[path] for path in bank.paths], bank.config.path_bytes, tier), trace, between)


def run(directory: Path, seed: int, progress: Callable[[str], None]) -> dict[str, Any]:
    """What `--validate --json` prints, without what record.py adds."""
    bank = Bank(PAPER["160M"], directory / "160M", sample_nodes(PAPER["160M"]))
    progress(f"level files in {bank.directory}")
    for _ in make_bank(bank.config, bank.directory, bank.nodes):
        pass
    trace = switches(bank, PROMPTS, seed)
    host = Host(verify_rate(), fetch_s=0.0)

    found: list[Case] = []
    order = (CALIBRATES_HOST, *(name for name in THROTTLED if name != CALIBRATES_HOST))
    for name in order:
        progress(f"Throttled to {name}")
        profile = find(name)
        profile = replace(profile, latency=(profile.latency[-1],))  # as the throttle has it
        measured, sizes = _real(bank, ("direct", throttle(profile)), trace)
        outcome = simulate(_scenario(bank, profile, host), trace)
        if not np.array_equal(outcome.bytes_read, sizes):
            raise AssertionError(f"{name}: the simulated pager read other bytes than the real one")
        if name == CALIBRATES_HOST:
            smallest = sizes == sizes[sizes > 0].min()
            late = float(np.median(measured[smallest] - outcome.fetch_s[smallest]))
            host = replace(host, fetch_s=max(0.0, late))
            continue
        found += cases(f"throttled to {name}", sizes, measured, outcome.fetch_s)

    progress("this machine's disk")
    disk = Disk(bank)
    leaves = [visit.path[-1] for visit in trace.visits]
    measured, sizes = _real(
        bank,
        "direct",
        trace,
        lambda i: disk.calibrate(leaves[i - 1]) if i % (PROMPTS // CALIBRATIONS) == 1 else None,
    )
    profile = disk.profile()
    outcome = simulate(_scenario(bank, profile, host), trace, disk.slowdowns(PROMPTS, seed))
    found += cases("this machine's disk", sizes, measured, outcome.fetch_s)

    errors = np.abs([case.errors for case in found])
    real = np.abs([case.errors for case in found if case.device == "this machine's disk"])
    return {
        "median_error": round(float(errors[:, 0].mean()), 4),
        "p95_error": round(float(errors[:, 1].mean()), 4),
        "worst": {
            "median_error": round(float(errors[:, 0].max()), 4),
            "p95_error": round(float(errors[:, 1].max()), 4),
        },
        "disk_alone": {
            "median_error": round(float(real[:, 0].mean()), 4),
            "p95_error": round(float(real[:, 1].mean()), 4),
        },
        "aims": {"median_error": 0.1, "p95_error": 0.2},
        "meaning": "mean over the cases of |predicted / measured - 1|, of the median and the 95th percentile",
        "cases": [case.row() for case in found],
        "calibration": {
            "host_us": round(host.fetch_s * 1e6, 1),
            "host_by": f"the smallest reads throttled to {CALIBRATES_HOST}, which is not among the cases",
            "verify_gb_s": round(host.verify_bytes_per_second / 1e9, 2),
            "disk_gb_s": round(profile.bytes_per_second / 1e9, 3),
            "disk_latency_us": [[size, round(s * 1e6, 1)] for size, s in profile.latency],
            "disk_burst_spread": np.round(np.percentile(disk.slowdowns(1000, 0), (5, 50, 95)), 3).tolist(),
        },
        "prompts": PROMPTS,
        "seed": seed,
        "bytes_agree": True,
    }
