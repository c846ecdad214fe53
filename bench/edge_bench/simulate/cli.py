"""`edge-runtime simulate`: what a device, a budget and a bank would do, before any of them is there."""

from __future__ import annotations

import argparse
import json
import math
import shlex
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from edge_bench.banks import PAPER
from edge_runtime.cli.verb import Verb
from edge_runtime.errors import InvalidArgumentError, UnsupportedError
from edge_runtime.pager import parse_budget

DTYPES = ("f16", "i8", "i4")
EVICTIONS = ("fading", "lru", "lfu", "recency")
PREFETCHES = ("none", "recent", "popular")
TRACES = ("zipf", "drift", "users")
ROUNDS = 5  # of figure 5 with real files


def add_arguments(parser: argparse.ArgumentParser) -> None:
    modes = parser.add_mutually_exclusive_group()
    modes.add_argument(
        "--figure5", action="store_true", help="the paper's figure 5: one device fitted, the rest predicted"
    )
    modes.add_argument(
        "--validate", action="store_true", help="predictions against the real pager on this machine"
    )
    modes.add_argument(
        "--search",
        action="store_true",
        help="rows, dtype and placement for one device, with the Pareto front",
    )
    parser.add_argument(
        "--anchor", choices=tuple(PAPER), default="160M", help="whose bank (default: %(default)s)"
    )
    parser.add_argument("--dtype", choices=DTYPES, default="i8", help="of the bank (default: %(default)s)")
    parser.add_argument(
        "--place",
        default="ufs-4.0",
        metavar="PLACEMENT",
        help="a device profile or its file, or one a level such as 1=ram,2=ufs-4.0,3=sd-card (default: %(default)s)",
    )
    parser.add_argument(
        "--budget", default="64MB", help="of the pager; with --search its limit (default: %(default)s)"
    )
    parser.add_argument("--eviction", choices=EVICTIONS, default="fading", help="default: %(default)s")
    parser.add_argument("--prefetch", choices=PREFETCHES, default="none", help="default: %(default)s")
    parser.add_argument(
        "--prefill-ms", type=float, default=0.0, help="of a prompt: hides a part of the fetch (default: 0)"
    )
    parser.add_argument(
        "--trace",
        default="drift",
        help="zipf, drift, users, or a file of JSON lines with a `path` each (default: %(default)s)",
    )
    parser.add_argument(
        "--prompts", type=int, default=2000, help="of a generated trace (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of a generated trace (default: 0)")
    parser.add_argument("--prompts-a-day", type=float, default=100.0, help="default: 100")
    parser.add_argument(
        "--updates-a-day", default="1MB", help="bytes of blocks replaced (default: %(default)s)"
    )
    parser.add_argument(
        "--target-ms", type=float, help="find the smallest budget whose 95th percentile is within it"
    )
    parser.add_argument("--policies", action="store_true", help="compare all eviction and prefetch policies")
    parser.add_argument("--deadline-ms", type=float, default=20.0, help="of --search (default: 20)")
    parser.add_argument(
        "--flash", default="8GB", help="of --search: room for the bank (default: %(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument(
        "-o", "--output", type=Path, metavar="DIR", help="write results.json and a picture there"
    )


# What each kind of run reads; an option of another one is refused, not ignored.
BANK = {"anchor", "place", "budget", "prompts", "seed"}
READ = {
    "figure5": set[str](),
    "validate": {"seed"},
    "search": BANK | {"deadline_ms", "flash"},
    "answers": BANK
    | {"dtype", "eviction", "prefetch", "prefill_ms", "trace", "prompts_a_day", "updates_a_day"}
    | {"target_ms", "policies"},
}
EVERY = {"figure5", "validate", "search", "json", "output"}


def kind_of(arguments: argparse.Namespace) -> str:
    return next((kind for kind in ("figure5", "validate", "search") if getattr(arguments, kind)), "answers")


def _check(arguments: argparse.Namespace) -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    kind = kind_of(arguments)
    mode = "a run without --search" if kind == "answers" else f"--{kind}"
    for name, value in vars(parser.parse_args([])).items():
        given = getattr(arguments, name)
        option = f"--{name.replace('_', '-')}"
        if name not in EVERY | READ[kind] and given != value:
            raise InvalidArgumentError(f"{option}: {mode} does not read it")
        if isinstance(given, float) and not math.isfinite(given):
            raise InvalidArgumentError(f"{option} {given}: it must be finite")
    if arguments.target_ms is not None and arguments.target_ms <= 0:
        raise InvalidArgumentError(f"--target-ms {arguments.target_ms}: it must be above 0")
    if arguments.output is not None:
        arguments.output.mkdir(parents=True, exist_ok=True)


@contextmanager
def _files(output: Path | None) -> Iterator[Path]:
    """Where level files go: beside the results, to be used again, or nowhere."""
    if output is not None:
        yield output / "banks"
        return
    with tempfile.TemporaryDirectory() as directory:
        yield Path(directory)


def _answers(arguments: argparse.Namespace) -> tuple[dict[str, Any], dict[str, Any]]:
    from edge_bench.simulate import answers, model, profiles, traces

    bank = replace(PAPER[arguments.anchor], dtype=arguments.dtype)
    depth = len(bank.rows)
    if arguments.trace in TRACES:
        trace = traces.generate(arguments.trace, arguments.prompts, arguments.seed, bank.fanout, depth)
    else:
        trace = traces.read(Path(arguments.trace), bank.fanout, depth)
    scenario = model.Scenario(
        bank,
        profiles.parse_placement(arguments.place, model.levels_of(bank)),
        parse_budget(arguments.budget),
        arguments.eviction,
        arguments.prefetch,
        model.Host(prefill_s=arguments.prefill_ms / 1e3),
    )
    day = answers.Day(arguments.prompts_a_day, parse_budget(arguments.updates_a_day))
    result = answers.answer(scenario, trace, day, arguments.target_ms, arguments.policies)
    return result, {**scenario.configuration(), "trace": trace.name, "seed": arguments.seed}


def _search(arguments: argparse.Namespace, console: Console) -> tuple[dict[str, Any], dict[str, Any]]:
    from edge_bench.simulate import profiles, search

    device = profiles.find(arguments.place)
    limits = search.Limits(
        parse_budget(arguments.budget), arguments.deadline_ms, float(parse_budget(arguments.flash))
    )
    with console.status("") as status:
        result = search.run(
            arguments.anchor,
            device,
            limits,
            arguments.prompts,
            arguments.seed,
            lambda i, of: status.update(f"{i} of {of} configurations"),
        )
    return result, {
        "anchor": arguments.anchor,
        "device": device.key,
        "prompts": arguments.prompts,
        "seed": arguments.seed,
    }


def run(arguments: argparse.Namespace) -> int:
    if sys.platform != "linux":
        raise UnsupportedError("simulate needs the benchmarks' native half, which needs Linux")
    _check(arguments)
    from edge_bench.simulate import draw, figure5, record, tables, validate

    console = Console(stderr=True, highlight=False, soft_wrap=True)

    def progress(text: str) -> None:
        console.print(f"simulate: {text}")

    kind = kind_of(arguments)
    if kind == "figure5":
        with _files(arguments.output) as directory:
            result, configuration = figure5.run(directory, ROUNDS, progress), {"rounds": ROUNDS}
    elif kind == "validate":
        with _files(arguments.output) as directory:
            result, configuration = (
                validate.run(directory, arguments.seed, progress),
                {"seed": arguments.seed},
            )
    elif kind == "search":
        result, configuration = _search(arguments, console)
    else:
        result, configuration = _answers(arguments)
    command = shlex.join(["edge-runtime", *sys.argv[1:]])
    whole = record.complete(kind, result, configuration, command)
    if arguments.json:
        print(json.dumps(whole))
    else:
        tables.TABLES[kind](whole, Console(highlight=False))
    if arguments.output is not None:
        for path in record.write(whole, arguments.output, draw.DRAWERS[kind]):
            progress(f"wrote {path}")
    return 0


VERB = Verb(
    "simulate", "simulate storage tiers: latency, energy, budgets, and which bank fits", add_arguments, run
)
