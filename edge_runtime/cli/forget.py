"""`edge-runtime forget`: takes out of a bank what `teach` put in."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from edge_runtime.administration.teaching import forget
from edge_runtime.cli.options import node
from edge_runtime.cli.verb import Verb


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Takes out what blocks have learnt from documents (docs/teach.md): personal blocks are erased, "
        "the bank's own are what they were before. All other blocks stay byte for "
        "byte. One new revision: open sessions keep theirs."
    )
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="the bundle's directory; it is changed")
    parser.add_argument(
        "--documents", nargs="+", default=[], metavar="NAME", help="as `teach` recorded them, or their sha256"
    )
    parser.add_argument(
        "--nodes", nargs="+", type=node, default=[], metavar="LEVEL:NODE", help="blocks, such as 3:1042"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(arguments: argparse.Namespace) -> int:
    found = forget(arguments.bundle, arguments.documents, arguments.nodes)
    if arguments.json:
        print(json.dumps({"bundle": str(arguments.bundle)} | asdict(found)))
        return 0
    print(
        f"{arguments.bundle}: revision {found.outcome.revision}, {len(found.removed)} personal blocks erased, "
        f"{len(found.restored)} blocks as they were before"
    )
    for note in found.outcome.notes:
        print(note)
    if found.also:
        print(f"these shared a block and have lost it as well, teach them again: {', '.join(found.also)}")
    return 0


VERB = Verb("forget", "Takes what documents taught out of a bundle's bank.", add_arguments, run)
