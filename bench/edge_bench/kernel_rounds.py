"""The measurements of `edge_bench.kernels`: interleaved rounds, so that a busy moment hits every kind of memory."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from edge_bench._native import kernel_passes, read_passes
from edge_bench.banks import Bank
from edge_bench.contestants import EVERYTHING
from edge_bench.measure import FEWEST
from edge_runtime.bundle import Bundle
from edge_runtime.engines import Context, open_engine
from edge_runtime.pager import Lease, Pager, ThrottledDevice

PREFILL_TOKENS, SHORT_TOKENS = 128, 16
STREAM_BYTES = 2**28  # eight times the largest last-level cache that a small machine has
KERNEL_PATHS = 8  # streamed in turn: together more than the caches hold
PASSES = 3


@dataclass(frozen=True)
class Plan:
    rounds: int
    fetch_rounds: int  # more, as what they differ by is a few milliseconds
    decode_tokens: int
    dtypes: tuple[str, ...]
    speeds: tuple[float, ...]  # of the device, bytes a second
    limit_s: float = math.inf  # of each part: then no round begins, but for the fewest


QUICK = Plan(11, 15, 24, ("int8", "int4"), (0.6e9, 2e9), 20.0)
FULL = Plan(11, 25, 48, ("int8", "int4", "f16"), (0.3e9, 0.6e9, 1e9, 2e9, 4e9))


def _summary(values: list[float]) -> dict[str, float]:
    array = np.array(values)
    return {"median": float(np.median(array)), "sigma": float(array.std()), "rounds": len(values)}


def _ratio(one: list[float], other: list[float]) -> float:
    """The median over the pairs of one round."""
    return float(np.median(np.array(one) / np.array(other)))


class Bench:
    """REQUIRES that the banks have the bundle's layers and width; "few" is of FEW_ROWS."""

    def __init__(self, bundle: Bundle, banks: Mapping[str, Bank], threads: int, plan: Plan) -> None:
        self._banks, self._plan, self._threads = banks, plan, threads
        self._context: Context = open_engine(bundle, threads).new_context()
        random = np.random.default_rng(0)
        self._tokens = random.integers(0, bundle.manifest.anchor.vocab_size, PREFILL_TOKENS)

    def _prefill(self, count: int, handle: int) -> float:
        """Seconds."""
        self._context.reset()
        start = time.perf_counter()
        self._context.forward(self._tokens[:count], handle)
        return time.perf_counter() - start

    def _decode(self, handles: Mapping[str, int], order: np.random.Generator) -> dict[str, float]:
        """Seconds of the median token with each memory, behind a short prompt.

        They take turns token by token in one context, so that all of them see the same moments and positions.
        """
        self._prefill(SHORT_TOKENS, 0)
        seconds: dict[str, list[float]] = {name: [] for name in handles}
        for i in range(self._plan.decode_tokens):
            for name in order.permutation(list(handles)):
                start = time.perf_counter()
                self._context.forward(self._tokens[i : i + 1], handles[name])
                seconds[name].append(time.perf_counter() - start)
        return {name: float(np.median(values)) for name, values in seconds.items()}

    def speed(self) -> dict[str, Any]:
        """Decode and prefill with no memory, with a lease without blocks, and with each bank, all resident."""
        leases: dict[str, Lease | None] = {"off": None}
        for name, bank in self._banks.items():
            pager = Pager([[path] for path in bank.paths], bank.config.path_bytes, "direct")
            if "empty" not in leases:
                absent = next(n for n in range(bank.config.fanout**3) if n not in set(bank.leaves))
                leases["empty"] = pager.fetch([(3, absent)])
            leases[name] = pager.fetch(bank.config.path(bank.leaves[0]))
        for lease in leases.values():
            if lease is not None:
                lease.wait()
        handles = {name: 0 if lease is None else lease.handle for name, lease in leases.items()}
        decode: dict[str, list[float]] = {name: [] for name in leases}
        prefill: dict[str, list[float]] = {name: [] for name in leases}
        read: list[float] = []
        order = np.random.default_rng(1)
        end = time.monotonic() + self._plan.limit_s
        for i in range(-1, self._plan.rounds):
            if i >= FEWEST and time.monotonic() > end:
                break
            tokens = self._decode(handles, order)
            if i >= 0:
                read.append(STREAM_BYTES / float(np.median(read_passes(STREAM_BYTES, self._threads, PASSES))))
            for name in order.permutation(list(handles)):
                seconds = self._prefill(PREFILL_TOKENS, handles[name])
                if i >= 0:
                    decode[name].append(tokens[name])
                    prefill[name].append(seconds)
        for lease in leases.values():
            if lease is not None:
                lease.release()
        return {
            # Between the rounds, and a median as theirs: what a host gives to a machine changes within seconds.
            "read_bytes_per_s": float(np.median(read)),
            "rows": [
                {
                    "memory": name,
                    "decode_tokens_per_s": _summary([1 / s for s in decode[name]]),
                    "prefill_tokens_per_s": _summary([PREFILL_TOKENS / s for s in prefill[name]]),
                    "decode_over_off": _ratio(decode["off"], decode[name]),
                    "prefill_over_off": _ratio(prefill["off"], prefill[name]),
                    "added_ms": 1e3 * float(np.median(np.array(decode[name]) - np.array(decode["off"]))),
                    "bytes": 0 if name in ("off", "empty") else self._banks[name].config.path_bytes,
                }
                for name in leases
            ],
        }

    def bandwidth(self) -> dict[str, float]:
        """Bytes a second, of memory and of the int8 kernel, with the engine's threads and with one.

        The best of three passes a round, on both sides: what the machine can do, as whoever takes a core away can
        only slow it down. The median of the rounds.
        """
        bank = self._banks["int8"]
        paths = [bank.config.path(leaf) for leaf in bank.leaves[:: len(bank.leaves) // KERNEL_PATHS or 1]]
        pager = Pager([[path] for path in bank.paths], bank.blocks_bytes, "direct")
        leases = [pager.fetch(path) for path in paths]
        for lease in leases:
            lease.wait()
        handles, size = [lease.handle for lease in leases], len(leases) * bank.config.path_bytes
        read: dict[int, list[float]] = {self._threads: [], 1: []}
        kernel: dict[int, list[float]] = {self._threads: [], 1: []}
        for _ in range(self._plan.rounds):
            for threads in read:
                read[threads].append(STREAM_BYTES / min(read_passes(STREAM_BYTES, threads, PASSES)))
                kernel[threads].append(size / min(kernel_passes(handles, threads, PASSES)))
        for lease in leases:
            lease.release()
        return {
            "read_bytes_per_s": float(np.median(read[self._threads])),
            "read_one_thread_bytes_per_s": float(np.median(read[1])),
            "kernel_bytes_per_s": float(np.median(kernel[self._threads])),
            "kernel_one_thread_bytes_per_s": float(np.median(kernel[1])),
            "kernel_share": _ratio(kernel[self._threads], read[self._threads]),
            "kernel_share_one_thread": _ratio(kernel[1], read[1]),
        }

    def fetches(self) -> list[dict[str, Any]]:
        """Time to first token, warm and cold, the cold one with the whole fetch first and behind the prefill."""
        bank, rows = self._banks["int8"], []
        for speed in self._plan.speeds:
            # In the page cache and mapped: the device is the throttle alone, whatever disk this machine has.
            device = ThrottledDevice(speed, 100.0)
            pager = Pager([[path] for path in bank.paths], bank.config.path_bytes, ("mapped", device))
            end = time.monotonic() + self._plan.limit_s / len(self._plan.speeds)
            for count in (SHORT_TOKENS, PREFILL_TOKENS):
                times: dict[str, list[float]] = {"warm": [], "serial": [], "on": [], "off": []}
                for i in range(self._plan.fetch_rounds + 1):
                    if i > FEWEST and time.monotonic() > end:
                        break
                    found = self._first_token(pager, bank, i, count)
                    if i:
                        for name, seconds in found.items():
                            times[name].append(seconds)
                warm, serial = (np.array(times[name]) for name in ("warm", "serial"))
                rows.append(
                    {
                        "bytes_per_s": speed,
                        "tokens": count,
                        **{f"{name}_ms": 1e3 * float(np.median(values)) for name, values in times.items()},
                        "stall_share_on": float(np.median((np.array(times["on"]) - warm) / serial)),
                        "stall_share_off": float(np.median((np.array(times["off"]) - warm) / serial)),
                        "cold_over_warm": _ratio(times["on"], times["warm"]),
                    }
                )
        return rows

    def _first_token(self, pager: Pager, bank: Bank, turn: int, count: int) -> dict[str, float]:
        """Seconds of one round; each fetch begins with nothing resident."""
        nodes = bank.config.path(bank.leaves[turn % len(bank.leaves)])
        found = {}

        def timed(name: str, wait: bool, compute: bool) -> Lease:
            pager.shrink(EVERYTHING)
            start = time.perf_counter()
            lease = pager.fetch(nodes)
            if wait:
                lease.wait()
            if compute:
                self._prefill(count, lease.handle)
            found[name] = time.perf_counter() - start
            return lease

        timed("serial", wait=True, compute=False).release()
        timed("off", wait=True, compute=True).release()
        with timed("on", wait=False, compute=True) as lease:
            found["warm"] = self._prefill(count, lease.handle)
        return found

    def headline(
        self, speed: dict[str, Any], bandwidth: dict[str, float], curve: list[dict[str, Any]]
    ) -> dict[str, Any]:
        """The keys that answer whether memory runs at full speed."""
        rows = {row["memory"]: row for row in speed["rows"]}

        def least_ms(name: str) -> float:
            return float(1e3 * rows[name]["bytes"] / speed["read_bytes_per_s"])

        # What a call costs whatever its bytes: finding rows, handing them to the threads, adding up what each found.
        dispatch = rows["few"]["added_ms"] - least_ms("few")

        def over_limit(name: str) -> float:
            return float((rows[name]["added_ms"] - max(dispatch, 0.0)) / least_ms(name))

        at = {(row["bytes_per_s"], row["tokens"]): row for row in curve}
        values = {
            "decode_ratio_int8": rows["int8"]["decode_over_off"],
            "decode_ratio_int4": rows["int4"]["decode_over_off"],
            "prefill_ratio_int8": rows["int8"]["prefill_over_off"],
            "added_ms_over_limit_int8": over_limit("int8"),
            "added_ms_over_limit_int4": over_limit("int4"),
            "dispatch_ms": dispatch,
            "kernel_share_of_bandwidth": bandwidth["kernel_share"],
            "hidden_fetch_16_2gbs": at[2e9, SHORT_TOKENS]["stall_share_on"],
            "hidden_fetch_16_0_6gbs": at[0.6e9, SHORT_TOKENS]["stall_share_on"],
            "ttft_cold_over_warm_2gbs": at[2e9, PREFILL_TOKENS]["cold_over_warm"],
            "decode_tokens_per_s_off": rows["off"]["decode_tokens_per_s"]["median"],
            "decode_tokens_per_s_int8": rows["int8"]["decode_tokens_per_s"]["median"],
        }
        return {key: round(value, 4) for key, value in values.items()}
