"""`edge-runtime compare`: every program of a bundle against the torch reference."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from edge_runtime.bundle import Bundle
from edge_runtime.cli.options import check_threads
from edge_runtime.cli.verb import Verb
from edge_runtime.comparison import compare


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="the bundle's directory")
    parser.add_argument("--threads", type=int, default=2, help="of the engines (default: 2)")
    parser.add_argument("--json", action="store_true", help="print one JSON list")


def run(arguments: argparse.Namespace) -> int:
    """Exit code 1 where no program could be run."""
    check_threads(arguments.threads)
    rows = list(compare(Bundle.open(arguments.bundle), arguments.threads))
    if arguments.json:
        print(json.dumps([asdict(row) for row in rows], indent=2))
    else:
        table = Table("engine", "flavour", "weights", "memory")
        table.add_column("max logit error", overflow="fold")
        table.add_column("same token")
        for row in rows:
            found = (
                (row.reason, "-")
                if row.max_logit_error is None or row.agreement is None
                else (f"{row.max_logit_error:.2e}", f"{row.agreement:.1%}")
            )
            table.add_row(row.engine, row.flavour, row.dtype, row.memory, *found)
        Console().print(table)
    return 0 if any(row.reason is None for row in rows) else 1


VERB = Verb("compare", "Compares every program with the torch reference.", add_arguments, run)
