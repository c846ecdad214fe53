"""`edge-runtime footprint`: the smallest memory limit under which a bundle answers, and its speed against the limit."""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path
from typing import Any

from edge_bench.bench_verb.prompts import read_prompts
from edge_bench.bench_verb.verb import count
from edge_bench.command import progress, require_linux, verb_command
from edge_runtime.cli.options import BUDGET_HELP
from edge_runtime.cli.verb import Verb
from edge_runtime.errors import InvalidArgumentError

TOOL, SCHEMA = "edge_bench.footprint", 1
HELP = "find the smallest memory limit that a bundle answers in"
PATIENCE = 20.0  # seconds for opening and for each reply: whatever takes longer is too slow at any fraction


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="the bundle's directory")
    parser.add_argument("--engine", metavar="NAME", help="or engine/flavour (default: the bundle's first)")
    parser.add_argument(
        "--fraction", type=float, default=0.5, metavar="F", help="of the unrestricted speed (default: 0.5)"
    )
    parser.add_argument("-t", "--threads", type=count, default=2, metavar="N", help="(default: 2)")
    parser.add_argument("--budget", metavar="SIZE", help=BUDGET_HELP)
    parser.add_argument("--storage", choices=("auto", "direct", "mapped"), default="auto")
    parser.add_argument("--router", metavar="NAME", help="which of the bundle's routers")
    parser.add_argument(
        "--prompts", type=Path, metavar="FILE", help="one a line, or JSON lines (default: eight of our own)"
    )
    parser.add_argument("--answer-tokens", type=count, default=16, metavar="N", help="(default: 16)")
    parser.add_argument(
        "--seconds", type=float, default=1.0, metavar="S", help="of answers a trial (default: 1)"
    )
    parser.add_argument(
        "-o", "--out", type=Path, default=Path("runs/footprint"), metavar="DIR",
        help="for footprint.json and footprint.png (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print the JSON record")


def measure(arguments: argparse.Namespace, command: str) -> dict[str, Any]:
    from edge_bench import machine
    from edge_bench.bench_verb.measure import programs
    from edge_bench.cgroup import MemoryGroup
    from edge_bench.footprint.search import search
    from edge_bench.limited import Load, attempt
    from edge_runtime.bundle import Bundle

    bundle = Bundle.open(arguments.bundle)
    engine = next(iter(programs(bundle, [arguments.engine] if arguments.engine else [])))
    with MemoryGroup.below_own(None):
        pass  # refuses here, before anything is measured
    options = {"budget": arguments.budget, "storage": arguments.storage, "threads": arguments.threads}
    fetchable = bundle.manifest.memory is not None and bundle.manifest.router is not None
    load = Load(
        arguments.bundle,
        {"engine": engine, "router": arguments.router, **options},
        tuple(read_prompts(arguments.prompts)),
        arguments.answer_tokens,
        "fetched" if fetchable else "none",
        arguments.seconds,
    )
    started, average = time.time(), machine.load()
    found = search(lambda limit: attempt(load, limit, PATIENCE), arguments.fraction, progress("footprint"))
    return {
        "schema": SCHEMA,
        "tool": TOOL,
        "bundle": bundle.manifest.name,
        "engine": engine,
        "fraction": arguments.fraction,
        "smallest_limit_bytes": found.smallest.limit_bytes,
        "smallest": found.smallest.to_json(),
        "unrestricted": found.unrestricted.to_json(),
        "trials": [trial.to_json() for trial in found.trials],
        "program_bytes": bundle.manifest.files[programs(bundle, [engine])[engine].path].bytes,
        "bank_bytes": bundle.bank_bytes,
        "prompts": list(load.prompts),
        "answer_tokens": load.answer_tokens,
        **options,
        **machine.provenance(arguments.bundle, average, started, command),
    }


def run(arguments: argparse.Namespace) -> int:
    require_linux()
    if not 0 < arguments.fraction <= 1:
        raise InvalidArgumentError(f"--fraction {arguments.fraction}: it is more than 0 and at most 1")
    if not 0 < arguments.seconds < math.inf:
        raise InvalidArgumentError(f"--seconds {arguments.seconds}: it is more than 0, and finite")
    arguments.out.mkdir(parents=True, exist_ok=True)
    from edge_bench.footprint.draw import draw
    from edge_bench.footprint.tables import markdown

    record = measure(arguments, verb_command("footprint"))
    text = json.dumps(record, indent=1)
    (arguments.out / "footprint.json").write_text(text + "\n", encoding="utf-8")
    draw(record, arguments.out / "footprint.png")
    print(text if arguments.json else markdown(record))
    return 0


VERB = Verb("footprint", HELP, add_arguments, run)
