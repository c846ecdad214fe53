"""The whole record of `edge-runtime bench`."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edge_bench import machine
from edge_bench.bench_verb.paging import summarise, trace
from edge_bench.bench_verb.speeds import MEMORIES, Test, measure_speeds
from edge_bench.remote import Remote, open_worker
from edge_runtime.bundle import Bundle
from edge_runtime.errors import EdgeRuntimeError, InvalidArgumentError, UnsupportedError
from edge_runtime.manifest import ProgramSpec

TOOL = "edge_bench.bench"
SCHEMA = 1


@dataclass(frozen=True)
class Plan:
    """engines: those named, where all must run; none: every program of the bundle that this machine can run."""

    bundle: Path
    engines: tuple[str, ...]
    tests: tuple[Test, ...]
    tests_named: bool  # then one that does not fit the context is an error
    repetitions: int
    warm_up: bool
    prompts: tuple[str, ...]
    requests: int
    answer_tokens: int
    budget: str | None
    storage: str
    threads: int
    router: str | None


def programs(bundle: Bundle, names: Sequence[str]) -> dict[str, ProgramSpec]:
    """By engine/flavour. UnsupportedError where the bundle lacks one."""
    there = {f"{one.engine}/{one.flavour}": one for one in bundle.manifest.programs}
    if not there:
        raise UnsupportedError(f"{bundle.directory}: it has no program: export it for an engine")
    chosen = {}
    for name in names or there:
        found = next((full for full in there if name in (full, full.partition("/")[0])), None)
        if found is None:
            raise UnsupportedError(
                f"{bundle.directory}: it has no program for {name!r}; it has {', '.join(there)}"
            )
        chosen[found] = there[found]
    return chosen


def measure(
    plan: Plan, command: str, say: Callable[[str], None]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The record, and the trace of all requests.

    Raises:
        UnsupportedError: no engine can run the bundle.
        InvalidArgumentError: a named test is longer than the context.
        EdgeRuntimeError: a named engine failed.
    """
    started, load = time.time(), machine.load()
    bundle = Bundle.open(plan.bundle)
    manifest = bundle.manifest
    tests, skipped = _fitting(plan, manifest.anchor.context_length)
    engines: dict[str, dict[str, Any]] = {}
    requests: list[dict[str, Any]] = []
    with ExitStack() as stack:
        workers: dict[str, Remote] = {}
        for name, program in programs(bundle, plan.engines).items():
            say(f"{name}: opening, requests")
            try:
                worker, opened = open_worker(
                    None, str(plan.bundle), engine=name, budget=plan.budget, storage=plan.storage,
                    threads=plan.threads, router=plan.router,
                )  # fmt: skip
            except EdgeRuntimeError as error:
                if plan.engines:
                    raise
                skipped.append({"what": name, "why": str(error)})
                continue
            workers[name] = stack.enter_context(worker)
            rows, record = _requests(worker, name, plan, opened["fetchable"])
            requests += rows
            size = manifest.files[program.path].bytes
            engines[name] = {"dtype": program.dtype, "program_bytes": size, "opened": opened, **record}
        if not workers:
            raise UnsupportedError("; ".join(f"{one['what']}: {one['why']}" for one in skipped))
        memories = MEMORIES if all(one["opened"]["fetchable"] for one in engines.values()) else ("none",)
        say(f"{', '.join(test.name for test in tests)}: {plan.repetitions} repetitions")
        turns = [(name, test, memory) for name in workers for test in tests for memory in memories]
        speeds = measure_speeds(workers, turns, plan.repetitions, plan.warm_up)
    return {
        "schema": SCHEMA,
        "tool": TOOL,
        "bundle": {
            "name": manifest.name,
            "revision": manifest.revision,
            "parameters": manifest.anchor.parameters,
            "bank_bytes": bundle.bank_bytes,
            "levels": [] if manifest.memory is None else [asdict(one) for one in manifest.memory.levels],
        },
        "threads": plan.threads,
        "budget": plan.budget,
        "prompts": list(plan.prompts),
        "answer_tokens": plan.answer_tokens,
        "tests": speeds,
        "engines": engines,
        "skipped": skipped,
        **machine.provenance(plan.bundle, load, started, command),
    }, requests


def _requests(
    worker: Remote, name: str, plan: Plan, fetchable: bool
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The trace of one engine, and what it comes to; its memory last, as it is looked at while nothing is timed."""
    rows = trace(worker, name, plan.prompts, plan.requests, plan.answer_tokens, fetchable)
    alone = [worker.ask("fetch", prompt=prompt) for prompt in plan.prompts] if fetchable else []
    mode = "fetched" if fetchable else "none"
    memory = worker.ask("memory", prompt=plan.prompts[0], max_tokens=plan.answer_tokens, memory=mode)
    return rows, {"requests": summarise(rows, alone), "memory": memory}


def _fitting(plan: Plan, context_length: int) -> tuple[list[Test], list[dict[str, str]]]:
    """The tests that fit, and those that do not, with the reason."""
    long = [test for test in plan.tests if test.tokens > context_length]
    why = f"the context holds {context_length} tokens"
    if long and plan.tests_named:
        raise InvalidArgumentError(f"{long[0].name}: {why}: ask for fewer")
    return [test for test in plan.tests if test not in long], [{"what": t.name, "why": why} for t in long]
