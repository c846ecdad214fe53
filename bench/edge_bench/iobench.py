"""How fast the pager reads, against the best raw reader and against its peers.

    python -m edge_bench.iobench --quick            the 160M anchor's blocks, under a minute
    python -m edge_bench.iobench -o runs/iobench    all three anchors, block by block, lanes swept

Writes iobench.json, iobench.md and iobench.png into the directory, and beside them the level files that it made, which
a later run uses again. docs/benchmarks.md says what each figure means.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edge_bench.banks import PAPER, Bank, BankConfig, make_bank, sample_nodes
from edge_bench.command import guarded, say
from edge_runtime.cli.main import Parser

PROGRAM = "edge_bench.iobench"
SCHEMA = 1


def sampled_bank(config: BankConfig, directory: Path) -> Bank:
    """A bank of a few dozen blocks a level, made unless it is there."""
    nodes = sample_nodes(config)
    bank = Bank(config, directory / config.name, nodes)
    written = sum(size for _, size in make_bank(config, bank.directory, nodes))
    if written:
        say(PROGRAM, f"{bank.directory}: wrote {written / 1e6:,.0f} MB")
    return bank


def measure(output: Path, quick: bool, command: str) -> dict[str, Any]:
    """The whole record."""
    from edge_bench import machine
    from edge_bench.suite import FULL, QUICK, headline, run_config

    started = time.time()
    output.mkdir(parents=True, exist_ok=True)
    load = machine.load()
    plan = QUICK if quick else FULL

    def progress(text: str) -> None:
        say(PROGRAM, f"{time.time() - started:4.0f} s  {text}")

    configs = {}
    for name in plan.configs:
        bank = sampled_bank(PAPER[name], output / "banks")
        configs[name] = run_config(bank, plan, progress)
    return {
        "schema": SCHEMA,
        "tool": "edge_bench.iobench",
        "quick": quick,
        **headline(configs[plan.configs[0]]),
        **machine.provenance(output, load, started, command),
        "configs": configs,
    }


def run(arguments: argparse.Namespace, command: str) -> int:
    # Here, so that --help and a wrong option need no peer; before anything is measured, so that one that is missing is
    # missed at once.
    from edge_bench.plot import draw
    from edge_bench.report import markdown

    record = measure(arguments.output, arguments.quick, command)
    text = markdown(record)
    serialised = json.dumps(record, indent=1)
    for path in (arguments.output / "iobench.json", *([arguments.save] if arguments.save else [])):
        path.write_text(serialised + "\n", encoding="utf-8")
    (arguments.output / "iobench.md").write_text(text, encoding="utf-8")
    draw(record, arguments.output / "iobench.png")
    print(serialised if arguments.json else text)
    say(
        PROGRAM,
        f"wrote {arguments.output}/iobench.json, .md and .png; level files stay in {arguments.output}/banks",
    )
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    from edge_bench.machine import command

    parser = Parser(prog=PROGRAM, description="How fast the pager reads, against raw reads and its peers.")
    parser.add_argument(
        "--quick", action="store_true", help="only the blocks of the 160M anchor, under a minute"
    )
    parser.add_argument("--json", action="store_true", help="print the JSON record instead of the tables")
    parser.add_argument("--save", type=Path, metavar="FILE", help="write the record there, too")
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path("runs/iobench"),
        metavar="DIR",
        help="on the disk to be measured: 0.7 GB with --quick, else 8.5 GB (default: %(default)s)",
    )
    typed = command(PROGRAM, arguments)
    return guarded(parser, lambda parsed: run(parsed, typed), arguments)


if __name__ == "__main__":
    sys.exit(main())
