"""What a whole process that answers holds, beside what it must hold.

    python -m edge_bench.whole_process BUNDLE --runner build/tests/edge_runtime/cpp/runner/edge_run

One answer of the C runner and one of `edge-runtime run`, each in a process of its own: everything resident at its end,
beside the anchor, the KV cache of the tokens so far and the blocks that were fetched.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Column, Table

from edge_bench.command import guarded
from edge_runtime.bundle import Bundle
from edge_runtime.cli.main import Parser
from edge_runtime.errors import UnsupportedError

# Beside the anchor, the cache and the blocks: the runner's own, and what Python adds.
AIMS = {"edge_run": 12e6, "edge-runtime run": 52e6}
PROMPT = "What is the atomic number of hafnium?"


def measure(name: str, command: Sequence[str], context_length: int) -> dict[str, Any]:
    """The figures of one answer; `command` prints what `--json` gives. Raises UnsupportedError where it fails."""
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise UnsupportedError(f"{name}: {' '.join(done.stderr.split()) or done.returncode}")
    said = json.loads(done.stdout)
    tokens = said["prompt_tokens"] + said["generated_tokens"]
    kv = said["kv_bytes"] * tokens // context_length
    return {
        "process": name,
        "tokens": tokens,
        "resident_bytes": said["resident_bytes"],
        "anonymous_bytes": said["resident_anonymous_bytes"],
        "file_bytes": said["resident_file_bytes"],
        "anchor_bytes": said["weights_bytes"],
        "kv_bytes": kv,
        "fetched_bytes": said["bank_resident_bytes"],
        "rest_bytes": said["resident_bytes"] - said["weights_bytes"] - kv - said["bank_resident_bytes"],
        "aim_bytes": int(AIMS[name]),
    }


def run(arguments: argparse.Namespace) -> int:
    bundle = Bundle.open(arguments.bundle)
    if bundle.manifest.memory is None or {one.engine for one in bundle.manifest.programs} != {"native"}:
        raise UnsupportedError(f"{arguments.bundle}: not a bundle of the native engine with memory")
    options = [str(arguments.bundle), PROMPT, "--max-tokens", str(arguments.tokens)]
    commands = {"edge-runtime run": [sys.executable, "-m", "edge_runtime.cli.main", "run", *options]}
    if arguments.runner is not None:
        commands = {"edge_run": [str(arguments.runner), *options]} | commands
    context = bundle.manifest.anchor.context_length
    rows = [measure(name, command, context) for name, command in commands.items()]
    if arguments.json:
        print(json.dumps(rows, indent=1))
        return 0
    columns = ("resident", "anonymous", "file", "anchor", "kv", "fetched", "rest", "aim")
    table = Table(Column("process", no_wrap=True), "tokens", *columns, title="MB")
    for row in rows:
        table.add_row(
            row["process"],
            str(row["tokens"]),
            *(f"{row[f'{column}_bytes'] / 1e6:,.1f}" for column in columns),
        )
    Console(width=max(100, Console().width)).print(table)
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    parser = Parser(
        prog="edge_bench.whole_process",
        description="What a process that answers holds, beside what it must hold.",
    )
    parser.add_argument("bundle", type=Path)
    parser.add_argument(
        "--runner", type=Path, metavar="EDGE_RUN", help="the C runner (default: Python alone)"
    )
    parser.add_argument("--tokens", type=int, default=64, help="of the answer, at most (default: 64)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    return guarded(parser, run, arguments)


if __name__ == "__main__":
    sys.exit(main())
