"""`python -m edge_bench.peers`: other runtimes beside ours, in one run."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from edge_bench import machine
from edge_bench.banks import PAPER
from edge_bench.bench_verb.verb import count
from edge_bench.command import guarded, say, tell
from edge_bench.peers import contenders
from edge_runtime.cli.main import Parser

PROGRAM = "edge_bench.peers"
DECODE_TOKENS = 64


def run(arguments: argparse.Namespace) -> int:
    from edge_bench.peers.contenders import Plan
    from edge_bench.peers.measuring import measure
    from edge_bench.peers.tables import markdown

    named = tuple(dict.fromkeys(name for name in arguments.only.split(",") if name))
    plan = Plan(
        model=arguments.model,
        peers=named or tuple(contenders.PEERS),
        named=bool(named),
        quick=arguments.quick,
        threads=arguments.threads,
        repetitions=arguments.repetitions,
        decode_tokens=arguments.decode_tokens,
        directory=arguments.directory.resolve(),
        say=lambda text: say(PROGRAM, text),
    )
    record = measure(plan, machine.command(PROGRAM, arguments.typed))
    tell(record, arguments.json, arguments.save, markdown)
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    parser = Parser(prog=PROGRAM, description="Measures other runtimes beside ours, in one run.")
    parser.set_defaults(typed=arguments)
    parser.add_argument(
        "--only",
        default="",
        metavar="PEER,...",
        help=f"of {', '.join(contenders.PEERS)}; then each must run (default: all that run here)",
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="no prompts of 512 tokens, no ExecuTorch at 8 bits or 410M: under five minutes once its inputs exist",
    )
    parser.add_argument(
        "--model", choices=tuple(PAPER), default="160M", help="whose dimensions (default: 160M)"
    )
    parser.add_argument("-t", "--threads", type=count, default=2, metavar="N", help="(default: 2)")
    parser.add_argument("-r", "--repetitions", type=count, default=5, metavar="N", help="(default: 5)")
    parser.add_argument(
        "--decode-tokens",
        type=count,
        default=DECODE_TOKENS,
        metavar="N",
        help="tokens to generate (default: %(default)s)",
    )
    parser.add_argument(
        "--directory",
        type=Path,
        default=Path("runs/peers"),
        help="where the inputs are kept (default: runs/peers)",
    )
    parser.add_argument("--json", action="store_true", help="print the record instead of the tables")
    parser.add_argument("--save", type=Path, metavar="FILE", help="write the record there, too")
    return guarded(parser, run, arguments)


if __name__ == "__main__":
    sys.exit(main())
