"""`edge-runtime personal`: a personal level between copies of one anchor, encrypted."""

from __future__ import annotations

import argparse
from pathlib import Path

from edge_runtime.administration.personal import attach_personal, export_personal, read_key
from edge_runtime.cli.verb import Verb


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = "Carries what `teach` taught to another copy of the anchor, each block encrypted."
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    for name, summary in (
        ("export", "write the personal level into an encrypted file"),
        ("attach", "put an exported personal level into a bundle that has none"),
    ):
        action = actions.add_parser(name, help=summary, description=f"{summary.capitalize()}.")
        action.add_argument("bundle", type=Path, metavar="BUNDLE", help="the bundle's directory")
        if name == "export":
            action.add_argument("-o", "--out", type=Path, required=True, metavar="FILE", help="is written")
        else:
            action.add_argument("file", type=Path, metavar="FILE", help="from `personal export`")
        action.add_argument(
            "--key-file",
            type=Path,
            required=True,
            metavar="KEY",
            help="64 hexadecimal digits; `openssl rand -hex 32` makes them",
        )


def run(arguments: argparse.Namespace) -> int:
    key = read_key(arguments.key_file)
    if arguments.action == "export":
        blocks = export_personal(arguments.bundle, arguments.out, key)
        print(f"{arguments.out}: {blocks} blocks, encrypted")
    else:
        outcome = attach_personal(arguments.bundle, arguments.file, key)
        print(f"{arguments.bundle}: revision {outcome.revision}; open sessions keep theirs")
    return 0


VERB = Verb("personal", "Exports and attaches a personal level, encrypted.", add_arguments, run)
