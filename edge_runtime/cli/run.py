"""`edge-runtime run`: answers one prompt, streaming."""

from __future__ import annotations

import argparse
import json
import sys
from importlib import metadata

from edge_runtime.cli.options import (
    add_generation_options,
    add_runtime_options,
    generation_options,
    open_runtime,
    stats_lines,
    take_any_input,
)
from edge_runtime.cli.verb import Verb
from edge_runtime.text import readable


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_runtime_options(parser)
    parser.add_argument(
        "prompt", metavar="PROMPT", help="the text to go on from; - reads it from standard input"
    )
    add_generation_options(parser)
    parser.add_argument("--stats", action="store_true", help="then say what it cost, on standard error")
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object: the text and what it cost"
    )


def run(arguments: argparse.Namespace) -> int:
    take_any_input()
    prompt = readable(sys.stdin.read().rstrip("\n") if arguments.prompt == "-" else arguments.prompt)
    runtime = open_runtime(arguments)
    with runtime.session() as session:
        for text in session.generate(prompt, **generation_options(arguments)):  # type: ignore[arg-type]
            if not arguments.json:
                print(text, end="", flush=True)
        if arguments.json:
            manifest = runtime.bundle.manifest
            record = session.stats.to_json() | {
                "prompt": prompt,
                "seed": arguments.seed,
                "bundle": manifest.name,
                "revision": manifest.revision,
                "version": metadata.version("edge-runtime"),
                "storage": [] if runtime.pager is None else runtime.pager.storage_report(),
            }
            print(json.dumps(record))
        else:
            print()
        if arguments.stats:
            print("\n".join(stats_lines(session)), file=sys.stderr)
    return 0


VERB = Verb("run", "Answers one prompt, streaming.", add_arguments, run)
