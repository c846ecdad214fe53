"""`edge-runtime report`: one HTML file out of the records of bench, footprint, kernels, iobench and others."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from edge_bench.command import say
from edge_runtime.cli.verb import Verb
from edge_runtime.errors import NotFoundError

HELP = "make one HTML page of benchmarks' records"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "records",
        type=Path,
        nargs="+",
        metavar="RUN_OR_JSON",
        help="a record, or a folder with records, in the order of the page",
    )
    parser.add_argument(
        "-o", "--out", type=Path, default=Path("report.html"), metavar="FILE", help="(default: %(default)s)"
    )
    parser.add_argument("--title", default="edge-runtime: benchmarks", help="(default: %(default)s)")


def run(arguments: argparse.Namespace) -> int:
    from edge_bench.html_report.page import page
    from edge_bench.records import find_records

    def skip(why: str) -> None:
        say("edge-runtime report", f"skipped: {why}")

    found = [(path.name, record) for path, record in find_records(arguments.records, skip)]
    if not found:
        raise NotFoundError(f"{', '.join(map(str, arguments.records))}: no record of a benchmark")
    arguments.out.write_text(page(found, arguments.title), encoding="utf-8")
    print(
        f"wrote {arguments.out}: {len(found)} records, {arguments.out.stat().st_size / 1e6:.2f} MB",
        file=sys.stderr,
    )
    return 0


VERB = Verb("report", HELP, add_arguments, run)
