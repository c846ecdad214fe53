"""Whether answers fit in what they should need: the engine alone, the anchor, what is fetched, and a little.

    python -m edge_bench.answer_limit BUNDLE

Measures the engine's own constant with an empty program (a process that loads the engine and opens nothing), then
answers in a process limited to that + the anchor's program + one path of the bank + 64 MB. Both are what a control
group is charged. Fails where the system killed the process, or an answer failed.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edge_bench import machine
from edge_bench.bench_verb.measure import programs
from edge_bench.bench_verb.prompts import PROMPTS
from edge_bench.cgroup import MemoryGroup
from edge_bench.command import guarded
from edge_bench.limited import Load, attempt
from edge_bench.remote import Remote
from edge_runtime.bundle import Bundle
from edge_runtime.cli.main import FAILURE, Parser
from edge_runtime.errors import UnsupportedError

PROGRAM, SCHEMA = "edge_bench.answer_limit", 1
SLACK = 64 * 10**6  # the KV cache, the tokenizer, the router, the tables of the level files
PATIENCE = 120.0


def engine_constant(engine: str) -> dict[str, Any]:
    """Of a process that loads the engine and opens nothing."""
    with MemoryGroup.below_own(None) as group, Remote(group) as worker:
        loaded = worker.ask("load", engine=engine)
        peak = group.figures()["peak_bytes"]
        worker.__exit__()
    if peak is None:
        raise UnsupportedError("the control group does not tell its peak: it needs Linux 5.19 or newer")
    return {"charged_to_group_bytes": peak, **loaded}


def measure(arguments: argparse.Namespace, command: str) -> dict[str, Any]:
    bundle = Bundle.open(arguments.bundle)
    memory = bundle.manifest.memory
    if memory is None or bundle.manifest.router is None:
        raise UnsupportedError(f"{arguments.bundle}: it has no memory or no router")
    name, program = next(iter(programs(bundle, [arguments.engine] if arguments.engine else []).items()))
    constant = engine_constant(program.engine)
    anchor = bundle.manifest.files[program.path].bytes
    fetched = sum(level.block_bytes for level in memory.levels if level.level > 0)
    limit = constant["charged_to_group_bytes"] + anchor + fetched + SLACK
    options = {"engine": name, "budget": fetched, "storage": arguments.storage, "threads": arguments.threads}
    load = Load(arguments.bundle, options, PROMPTS, arguments.answer_tokens, "fetched", 1.0)
    trial = attempt(load, limit, PATIENCE)
    return {
        "schema": SCHEMA,
        "tool": PROGRAM,
        "bundle": bundle.manifest.name,
        "engine": name,
        "fits": trial.outcome == "ok",
        "constant": constant,
        "anchor_bytes": anchor,
        "fetched_bytes": fetched,
        "slack_bytes": SLACK,
        "bank_bytes": bundle.bank_bytes,
        "trial": trial.to_json(),
        "machine": machine.machine(arguments.bundle),
        "versions": machine.versions(),
        "revision": machine.revision(),
        "command": command,
    }


def summary(record: dict[str, Any]) -> str:
    parts = {
        "the engine alone": record["constant"]["charged_to_group_bytes"],
        "anchor": record["anchor_bytes"],
        "fetched": record["fetched_bytes"],
        "slack": record["slack_bytes"],
    }
    trial = record["trial"]
    peak = "not told" if trial["peak_bytes"] is None else f"{trial['peak_bytes'] / 1e6:,.1f} MB"
    return "\n".join(
        [
            f"{record['bundle']}, {record['engine']}, a bank of {record['bank_bytes'] / 1e9:.2f} GB",
            "limit      " + " + ".join(f"{name} {size / 1e6:,.1f}" for name, size in parts.items())
            + f" = {trial['limit_bytes'] / 1e6:,.1f} MB",
            f"answers    {'ok' if record['fits'] else 'FAILED'}: {trial['outcome']}; {trial['limit_hits']} times at "
            f"the limit, at most {peak} charged",
        ]
    )  # fmt: skip


def markdown(record: dict[str, Any]) -> str:
    return f"```\n{summary(record)}\n```\n\n`{record['command']}`, revision {record['revision']}.\n"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = Parser(prog=PROGRAM, description="Whether a bundle answers in the memory that it should need.")
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--engine", help="or engine/flavour (default: the bundle's first)")
    parser.add_argument("--threads", type=int, default=2, help="of the engine (default: 2)")
    parser.add_argument("--storage", choices=("auto", "direct", "mapped"), default="auto")
    parser.add_argument("--answer-tokens", type=int, default=16, help="of each request (default: 16)")
    parser.add_argument("--json", action="store_true", help="print the JSON record instead of a summary")
    typed = machine.command(PROGRAM, arguments)

    def run(parsed: argparse.Namespace) -> int:
        record = measure(parsed, typed)
        print(json.dumps(record, indent=1) if parsed.json else summary(record))
        return 0 if record["fits"] else FAILURE

    return guarded(parser, run, arguments)


if __name__ == "__main__":
    sys.exit(main())
