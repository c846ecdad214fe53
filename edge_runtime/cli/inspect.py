"""`edge-runtime inspect`: the manifest, levels and sizes of a bundle."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from edge_runtime.bank import LevelReader
from edge_runtime.bundle import Bundle
from edge_runtime.cli.options import megabytes
from edge_runtime.cli.verb import Verb
from edge_runtime.manifest import Level


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="the bundle's directory")
    parser.add_argument(
        "--json", action="store_true", help="print the manifest and the state as one JSON object"
    )


def _levels(bundle: Bundle) -> Table:
    table = Table("level", "rows", "dtype", "nodes", "with a block", "bytes a block", "on disk", title="bank")
    memory = bundle.manifest.memory
    levels: tuple[Level, ...] = memory.levels if memory else ()
    for level in levels:
        nodes = {int(node) for name in level.files for node in LevelReader(bundle.path_of(name)).nodes()} - {
            node for number, node in bundle.removed if number == level.level
        }
        size = sum(bundle.manifest.files[name].bytes for name in level.files)
        name = f"{level.level} (generic)" if level.level == 0 else str(level.level)
        table.add_row(
            name,
            str(level.rows),
            level.dtype,
            f"{level.nodes:,}",
            f"{len(nodes):,}",
            f"{level.block_bytes:,}",
            megabytes(size),
        )
    return table


def run(arguments: argparse.Namespace) -> int:
    bundle = Bundle.open(arguments.bundle)
    manifest = bundle.manifest
    if arguments.json:
        record = asdict(manifest) | {
            "bank_bytes": bundle.bank_bytes,
            "blocked": bundle.blocked,
            "removed": bundle.removed,
        }
        print(json.dumps(record))
        return 0
    console = Console(highlight=False)
    anchor = manifest.anchor
    console.print(f"{manifest.name}, revision {manifest.revision}, schema {manifest.schema}", style="bold")
    console.print(
        f"anchor: {anchor.architecture}, {anchor.parameters:,} parameters, {anchor.layers} layers, "
        f"d {anchor.d_model}, {anchor.heads} heads of {anchor.head_dim}, FFN {anchor.ffn_dim}, "
        f"vocabulary {anchor.vocab_size:,}, context {anchor.context_length:,}"
    )
    if manifest.memory is not None:
        memory = manifest.memory
        fetched = sum(level.block_bytes for level in memory.levels if level.level > 0)
        console.print(
            f"memory: {memory.kind}, fanout {memory.fanout}, in layers {', '.join(map(str, memory.layers))}; "
            f"bank {megabytes(bundle.bank_bytes)}, fetched {megabytes(fetched)}; "
            f"{len(bundle.blocked)} nodes blocked, {len(bundle.removed)} removed"
        )
        console.print(_levels(bundle))
    if manifest.router is not None:
        names = ", ".join(embedder.name for embedder in manifest.router.embedders)
        console.print(f"router: depth {manifest.router.depth}, embedders {names}")
    for program in manifest.programs:
        console.print(
            f"program: {program.engine}/{program.flavour}, {program.dtype}, prefill {program.max_prefill}, "
            f"reads {', '.join(program.bank_dtypes)}"
        )
    files = Table("file", "bytes", "sha256", "covers")
    for name, entry in manifest.files.items():
        files.add_row(name, f"{entry.bytes:,}", entry.sha256[:16], entry.covers)
    console.print(files)
    return 0


VERB = Verb("inspect", "Shows the manifest, levels and sizes of a bundle.", add_arguments, run)
