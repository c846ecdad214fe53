"""What of a process that answers is resident, and since when.

    python -m edge_bench.resident BUNDLE

Opens a bundle part by part, as `Runtime.open` does, and says what each part added: anonymous memory, which a phone
charges to the app, and pages of files, which it can take back.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from edge_bench.answering import first_path
from edge_bench.command import guarded
from edge_runtime import _core, engines
from edge_runtime.bundle import Bundle
from edge_runtime.cli.main import Parser
from edge_runtime.embedders import open_embedder
from edge_runtime.errors import UnsupportedError
from edge_runtime.pager import Pager
from edge_runtime.runtime import default_budget
from edge_runtime.stats import resident_memory
from edge_runtime.text import load_tokenizer

PREFILL_TOKENS = 128


def steps(directory: Path, threads: int, with_router: bool) -> Iterator[str]:
    """Does one step after another; yields each one's name when it is done."""
    yield "Python, numpy, edge_runtime"
    bundle = Bundle.open(directory)
    manifest = bundle.manifest
    if not manifest.programs or manifest.memory is None:
        raise UnsupportedError(f"{directory}: it has no program or no memory")
    engines.load(manifest.programs[0].engine)
    yield "the engine's libraries"
    tokenizer = load_tokenizer(bundle)
    yield "tokenizer"
    if with_router and manifest.router is not None:
        kept = (
            _core.Tree(str(bundle.path_of(manifest.router.tree))),
            open_embedder(bundle, None, threads, tokenizer),
        )
        kept[1].embed("What is the atomic number of hafnium?")
        yield "router, asked once"
    pager = Pager(
        bundle.level_paths, default_budget(manifest.memory), "direct", bundle.blocked, bundle.removed
    )
    yield "pager, nothing fetched"
    context = engines.open_engine(bundle, threads).new_context()
    yield "program, method and KV cache"
    tokens = np.arange(PREFILL_TOKENS) % manifest.anchor.vocab_size
    context.forward(tokens, 0)
    yield f"prefill of {PREFILL_TOKENS} tokens"
    lease = pager.fetch(first_path(bundle))
    lease.wait()
    yield "one path of memory"
    context.forward(tokens[:1], lease.handle)
    yield "a decoded token"


def run(arguments: argparse.Namespace) -> int:
    rows: list[tuple[str, int, int, int]] = []
    before = (0, 0)
    for name in steps(arguments.bundle, arguments.threads, not arguments.no_router):
        now = resident_memory()
        anonymous, file = now.anonymous or 0, now.file or 0
        rows.append((name, anonymous - before[0], file - before[1], now.total))
        before = (anonymous, file)
    if arguments.json:
        keys = ("step", "anonymous_bytes", "file_bytes", "resident_bytes")
        print(json.dumps([dict(zip(keys, row, strict=True)) for row in rows], indent=1))
        return 0
    table = Table("added by", "anonymous MB", "file MB", "resident since MB")
    for name, *sizes in rows:
        table.add_row(name, *(f"{size / 1e6:,.1f}" for size in sizes))
    Console().print(table)
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    parser = Parser(prog="edge_bench.resident", description="What each part of a bundle adds to a process.")
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--threads", type=int, default=2, help="of the engine (default: 2)")
    parser.add_argument("--no-router", action="store_true", help="leave the router out")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    return guarded(parser, run, arguments)


if __name__ == "__main__":
    sys.exit(main())
