"""What memory costs in time: decode, prefill, and how much of a fetch hides behind prefill.

    python -m edge_bench.kernels --quick --json     the 160M anchor, under a minute once its bundle is there
    python -m edge_bench.kernels -o runs/kernels    every speed of the device, f16 memory too

Writes kernels.json, kernels.md and kernels.png into the directory, and beside them the synthetic bundle and banks,
which a later run uses again. docs/benchmarks.md says what each figure means.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from edge_bench.command import guarded, say
from edge_runtime.cli.main import Parser

PROGRAM = "edge_bench.kernels"
SCHEMA = 1
BANK_PARAMETERS = 225e6  # a part of the tree: what is fetched is of the full size
DTYPES = {"int8": "i8", "int4": "i4", "f16": "f16"}
FEW_ROWS = (8, 8, 8)  # about the fewest that a call shares among threads: what is left without bytes


def prepare(
    output: Path, anchor: str, anchor_dtype: str, dtypes: Sequence[str]
) -> tuple[Any, dict[str, Any]]:
    """The bundle, and by name of dtype a bank of the same shape, and "few"; made unless they are there."""
    from edge_bench.banks import Bank, make_bank
    from edge_bench.synthetic import Synthetic
    from edge_runtime.bundle import Bundle

    plan = Synthetic(anchor, BANK_PARAMETERS, "i8", anchor_dtype)
    plan = replace(plan, bank_parameters=max(BANK_PARAMETERS, plan.least_parameters))
    directory = output / f"{anchor}-{anchor_dtype}.bundle"
    stamp = directory / "synth.json"
    if not (directory / "manifest.json").is_file() or json.loads(stamp.read_text()) != plan.to_json():
        say(PROGRAM, f"{directory}: writing it")
        for _ in plan.write_bank(directory):
            pass
        plan.write_rest(directory, lambda step: say(PROGRAM, step))
    # One path is enough to decode with.
    small = replace(plan, bank_parameters=max(30e6, plan.least_parameters))
    few = Bank(replace(plan.bank, rows=FEW_ROWS), output / f"{anchor}-few", small.nodes)
    for _ in make_bank(few.config, few.directory, few.nodes):
        pass
    banks = {"few": few, "int8": Bank(plan.bank, directory / "memory", plan.nodes)}
    for name in dtypes:
        if name not in banks:
            other = replace(small, memory_dtype=DTYPES[name])
            banks[name] = Bank(other.bank, output / f"{anchor}-{name}", other.nodes)
            for _ in make_bank(other.bank, banks[name].directory, other.nodes):
                pass
    return Bundle.open(directory), banks


def measure(arguments: argparse.Namespace, command: str) -> dict[str, Any]:
    """The whole record."""
    from edge_bench import machine
    from edge_bench.kernel_rounds import FULL, QUICK, Bench

    output: Path = arguments.output
    output.mkdir(parents=True, exist_ok=True)
    plan = QUICK if arguments.quick else FULL
    bundle, banks = prepare(output, arguments.anchor, arguments.anchor_dtype, plan.dtypes)
    started, load = time.time(), machine.load()
    bench = Bench(bundle, banks, arguments.threads, plan)
    say(PROGRAM, "decode and prefill")
    speed = bench.speed()
    say(PROGRAM, "streaming")
    bandwidth = bench.bandwidth()
    say(PROGRAM, "fetches behind prefill")
    curve = bench.fetches()
    return {
        "schema": SCHEMA,
        "tool": PROGRAM,
        "quick": arguments.quick,
        **bench.headline(speed, bandwidth, curve),
        "anchor": arguments.anchor,
        "anchor_dtype": arguments.anchor_dtype,
        "threads": arguments.threads,
        "program_bytes": bundle.manifest.files[bundle.manifest.programs[0].path].bytes,
        "speed": speed,
        "bandwidth": bandwidth,
        "fetches": curve,
        **machine.provenance(output, load, started, command),
    }


def run(arguments: argparse.Namespace, command: str) -> int:
    from edge_bench.kernel_report import draw, markdown

    record = measure(arguments, command)
    serialised, text = json.dumps(record, indent=1), markdown(record)
    (arguments.output / "kernels.json").write_text(serialised + "\n", encoding="utf-8")
    (arguments.output / "kernels.md").write_text(text, encoding="utf-8")
    draw(record, arguments.output / "kernels.png")
    print(serialised if arguments.json else text)
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    from edge_bench.machine import command

    parser = Parser(prog=PROGRAM, description="What memory costs in time, and how much of a fetch is hidden.")
    parser.add_argument("--quick", action="store_true", help="fewer speeds and rounds, under a minute")
    parser.add_argument("--json", action="store_true", help="print the JSON record instead of the tables")
    parser.add_argument("--anchor", choices=("160M", "410M", "1.4B"), default="160M", help="(default: 160M)")
    parser.add_argument(
        "--anchor-dtype", choices=("f32", "int8", "8da4w"), default="8da4w", help="(default: 8da4w)"
    )
    parser.add_argument("--threads", type=int, default=2, help="of the engine (default: 2)")
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path("runs/kernels"),
        metavar="DIR",
        help="for the record, the bundle and the banks, 0.5 GB (default: %(default)s)",
    )
    typed = command(PROGRAM, arguments)
    return guarded(parser, lambda parsed: run(parsed, typed), arguments)


if __name__ == "__main__":
    sys.exit(main())
