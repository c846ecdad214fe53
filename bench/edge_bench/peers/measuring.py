"""The whole record: every contender in a process of its own, all of them taking turns."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from edge_bench import machine
from edge_bench._native import read_passes
from edge_bench.bench_verb.speeds import SETTLING, WARM_UP_TOKENS, Test, measure_speeds
from edge_bench.peers.contenders import Contender, Plan, all_contenders
from edge_bench.peers.ratios import ratios
from edge_bench.peers.swapping import STATES, Swap
from edge_bench.remote import Remote

TOOL = "edge_bench.peers"
SCHEMA = 1
STREAM_BYTES, PASSES = 2**28, 5  # of a reading of the memory's bandwidth
PROMPTS = {"prefill128": 128, "prefill512": 512}
"""Tokens of the prompts, by the rows' keys; the first alone where it is to be quick."""
Speeds = Mapping[tuple[str, str, str], Sequence[float]]
"""Seconds of each repetition, by contender, test and memory."""
Swaps = Mapping[tuple[str, str], Sequence[Swap]]
"""Of each repetition, by contender and state."""


def measure(plan: Plan, command: str) -> dict[str, Any]:
    """
    Raises:
        UnsupportedError, InvalidArgumentError: as `all_contenders`.
        EdgeRuntimeError: a contender failed.
    """
    contenders, skipped = all_contenders(plan)
    # Making what is measured is not part of it.
    started, load = time.time(), machine.load()
    rows: list[dict[str, Any]] = []
    with ExitStack() as stack:
        workers = {}
        for one in contenders:
            plan.say(f"{one.name}: opening")
            workers[one.name] = stack.enter_context(Remote(subject=one.subject))
            rows.append(_row(one, plan) | _opened(one, workers[one.name]))
        tests = [Test("pp", n) for n in PROMPTS.values()][: 1 if plan.quick else None]
        decode = Test("tg", plan.decode_tokens)
        plan.say(f"{', '.join(test.name for test in (*tests, decode))}: {plan.repetitions} repetitions")
        timed = [one for one in contenders if not one.swaps_only]
        read = _bandwidths(plan.threads)
        speeds = _speeds(timed, workers, tests, decode, plan.repetitions)
        read += _bandwidths(plan.threads)
        plan.say("swaps")
        swaps = _swaps([one for one in contenders if one.swap is not None], workers, plan.repetitions)
    for row, one in zip(rows, contenders, strict=True):
        row |= _measured(one, plan, speeds, decode, swaps)
        row["read_share"] = _share(one, row["decode"], statistics.median(read))
    return {
        "schema": SCHEMA,
        "tool": TOOL,
        "model": plan.model,
        "threads": plan.threads,
        "repetitions": plan.repetitions,
        "decode_tokens": plan.decode_tokens,
        "read_bytes_per_s": {"median": statistics.median(read), "least": min(read), "most": max(read)},
        "rows": rows,
        "ratios": ratios(contenders, speeds, decode.name, delays(swaps)),
        "skipped": skipped,
        **machine.provenance(plan.directory, load, started, command),
    }


def _bandwidths(threads: int) -> list[float]:
    """Of memory, as so many threads read it, bytes a second."""
    return [STREAM_BYTES / seconds for seconds in read_passes(STREAM_BYTES, threads, PASSES)]


def _share(one: Contender, decode: float | None, read: float) -> float | None:
    """Of the memory's bandwidth, that decoding takes."""
    return round(decode * one.token_bytes / read, 3) if decode and one.token_bytes else None


def delays(swaps: Swaps) -> dict[tuple[str, str], list[float]]:
    """Milliseconds."""
    return {key: [swap["delay_ms"] for swap in taken] for key, taken in swaps.items()}


def _row(one: Contender, plan: Plan) -> dict[str, Any]:
    return {
        "name": one.name,
        "peer": one.peer,
        "version": one.version,
        "command": f"python -m {TOOL} --model {plan.model} --only {one.peer}" + " --quick" * plan.quick,
        "quantisation": one.quantisation,
        "model": one.model,
        "program_bytes": one.program.stat().st_size,
    }


def _opened(one: Contender, worker: Remote) -> dict[str, Any]:
    """What the process holds at most, when it has answered without memory and with it."""
    worker.ask("open", **one.options)
    if one.swaps_only:
        return {"resident": worker.ask("peak"), "resident_memory": None}
    worker.ask("speed", tokens=next(iter(PROMPTS.values())), decode=False, memory="none")
    worker.ask("speed", tokens=WARM_UP_TOKENS, decode=True, memory="none")
    found = {"resident": worker.ask("peak"), "resident_memory": None}
    if one.memory:
        worker.ask("speed", tokens=WARM_UP_TOKENS, decode=True, memory="fetched")
        found["resident_memory"] = worker.ask("peak")
    return found


def _speeds(
    contenders: Sequence[Contender],
    workers: Mapping[str, Remote],
    tests: Sequence[Test],
    decode: Test,
    repetitions: int,
) -> Speeds:
    turns = [(one.name, test, "none") for one in contenders for test in (*tests, decode)]
    turns += [(one.name, decode, "fetched") for one in contenders if one.memory]
    rows = measure_speeds(workers, turns, repetitions, True)
    return {
        (row["engine"], row["test"], row["memory"]): [1e-9 * ns for ns in row["samples_ns"]] for row in rows
    }


def _swaps(contenders: Sequence[Contender], workers: Mapping[str, Remote], repetitions: int) -> Swaps:
    found: dict[tuple[str, str], list[Swap]] = {}
    order = random.Random(0)
    turns = [(one, state) for one in contenders for state in STATES]
    for turn in range(-1, repetitions):
        for one, state in order.sample(turns, len(turns)):
            assert one.swap is not None
            time.sleep(SETTLING)
            swap = workers[one.name].ask("swap", state=state, number=turn % 2, **one.swap)
            if turn >= 0:
                found.setdefault((one.name, state), []).append(swap)
    return found


def _measured(one: Contender, plan: Plan, speeds: Speeds, decode: Test, swaps: Swaps) -> dict[str, Any]:
    def tokens_per_s(test: Test, memory: str = "none") -> float | None:
        seconds = speeds.get((one.name, test.name, memory))
        return None if seconds is None else round(test.tokens / statistics.median(seconds), 2)

    def spread(test: Test) -> float | None:
        seconds = speeds.get((one.name, test.name, "none"))
        return (
            None if seconds is None else round((max(seconds) - min(seconds)) / statistics.median(seconds), 3)
        )

    def swap_ms(state: str, calls: bool = False) -> float | None:
        taken = swaps.get((one.name, state))
        if taken is None:
            return None
        return round(statistics.median(each["call_ms" if calls else "delay_ms"] for each in taken), 3)

    row: dict[str, Any] = {key: tokens_per_s(Test("pp", n)) for key, n in PROMPTS.items()}
    return row | {
        "decode": tokens_per_s(decode),
        "decode_spread": spread(decode),
        "decode_memory": tokens_per_s(decode, "fetched"),
        "swapped": one.swapped or None,
        "swap_bytes": one.swap_bytes or None,
        "swap_ms": swap_ms("preloaded"),
        "swap_cold_ms": swap_ms("cold"),
        "swap_resident_ms": swap_ms("resident"),
        "swap_calls_ms": {state: swap_ms(state, True) for state in STATES} if one.swap is not None else None,
    }
