"""`edge-runtime bank`: what the bank holds, and changes of it."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from edge_runtime import administration
from edge_runtime.administration import Outcome
from edge_runtime.administration.edit import Report
from edge_runtime.cli.options import megabytes, node
from edge_runtime.cli.verb import Verb

DESCRIPTION = """\
Shows and changes the memory bank of a bundle. Each change is one new revision: after a crash, a full disk or
Ctrl-C the bundle is the old one or the new one, and sessions that are open keep the one that they opened."""

ACTIONS = {
    "status": (
        "what the bank holds",
        "Shows levels, overlays, blocked and removed nodes, and what `compact` would free.",
    ),
    "block": (
        "shut nodes and their subtrees",
        "Shuts nodes, each with its subtree: no prompt is routed to them, and the pager refuses to read them. "
        "Their bytes stay in the files, and `unblock` opens them again.",
    ),
    "unblock": ("open blocked nodes again", "Opens blocked nodes again, each with its subtree."),
    "remove": (
        "take blocks away for good",
        "Takes the nodes' own blocks away; their children keep theirs. This hides the blocks at once; their bytes "
        "stay in the level file until `compact`, or --compact here, writes it anew without them.",
    ),
    "replace": (
        "exchange blocks",
        "Gives nodes other blocks, in an overlay file beside the level's. The blocks that they hide stay in the "
        "level file until `compact`.",
    ),
    "add-level": (
        "attach a level file",
        "Copies a level file into the bundle, as a level that the bank does not have yet. Levels below the "
        "router's tree are refused: no prompt would reach them.",
    ),
    "compact": (
        "fold overlays and erase removed blocks",
        "Writes each level that has overlays or removed blocks anew, verified, and unlinks the old files: bytes of "
        "removed and replaced blocks are in no file of the bundle any more. (Flash keeps unlinked bytes until it "
        "reuses them.) Needs room for the new files beside the old.",
    ),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = DESCRIPTION
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    for name, (summary, description) in ACTIONS.items():
        action = actions.add_parser(name, help=summary, description=description)
        action.add_argument("bundle", type=Path, metavar="BUNDLE", help="the bundle's directory")
        if name in ("block", "unblock", "remove", "replace"):
            action.add_argument(
                "nodes",
                type=node,
                nargs="+",
                metavar="LEVEL:NODE",
                help="such as 1:7; 0:0 is the generic memory",
            )
        if name == "remove":
            action.add_argument("--compact", action="store_true", help="erase their bytes in the same step")
        if name == "replace":
            action.add_argument(
                "source",
                type=Path,
                metavar="FILE",
                help="a safetensors file of one block (w1, w2, w3 of [layers, r, d]), a level file, or another bundle",
            )
        if name == "add-level":
            action.add_argument("file", type=Path, metavar="FILE", help="a level file (docs/bank-format.md)")
        action.add_argument("--json", action="store_true", help="print one JSON object")


def _status(arguments: argparse.Namespace) -> None:
    found = administration.status(arguments.bundle)
    if arguments.json:
        print(json.dumps({"bundle": str(arguments.bundle)} | asdict(found)))
        return
    table = Table("level", "r", "dtype", "nodes", "with a block", "overlays", "on disk", "compact frees")
    for level in found.levels:
        table.add_row(
            str(level.level),
            str(level.rows),
            level.dtype,
            f"{level.nodes:,}",
            f"{level.blocks:,}",
            str(len(level.files) - 1),
            megabytes(level.bytes),
            megabytes(level.reclaimable_bytes),
        )
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"{arguments.bundle}, revision {found.revision}", style="bold")
    console.print(table)
    for what, nodes in (("blocked", found.blocked), ("removed", found.removed)):
        console.print(f"{what}: {' '.join(f'{level}:{index}' for level, index in nodes) or 'none'}")


@contextmanager
def _progress(action: str) -> Iterator[Report]:
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    # To a file, a bar that was never shown still ends with an empty line.
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(action, total=None, visible=False)
        yield lambda done, total: progress.update(task, completed=done, total=total, visible=True)


def _change(arguments: argparse.Namespace) -> Outcome:
    bundle: Path = arguments.bundle
    if arguments.action == "block":
        return administration.block(bundle, arguments.nodes)
    if arguments.action == "unblock":
        return administration.unblock(bundle, arguments.nodes)
    with _progress(arguments.action) as report:
        changes: dict[str, Callable[[], Outcome]] = {
            "remove": lambda: administration.remove(bundle, arguments.nodes, arguments.compact, report),
            "replace": lambda: administration.replace(bundle, arguments.nodes, arguments.source, report),
            "add-level": lambda: administration.add_level(bundle, arguments.file, report),
            "compact": lambda: administration.compact(bundle, report),
        }
        return changes[arguments.action]()


def run(arguments: argparse.Namespace) -> int:
    if arguments.action == "status":
        _status(arguments)
        return 0
    outcome = _change(arguments)
    changed = outcome.revision != outcome.previous_revision
    if arguments.json:
        record = {"bundle": str(arguments.bundle), "action": arguments.action, "changed": changed}
        print(json.dumps(record | asdict(outcome)))
        return 0
    for note in outcome.notes:
        print(note)
    if not changed:
        print(f"{arguments.bundle}: nothing to change, revision {outcome.revision} stays")
        return 0
    sizes = "".join(
        f", {size:,} bytes {what}"
        for size, what in ((outcome.bytes_written, "written"), (outcome.bytes_freed, "freed"))
        if size
    )
    print(f"{arguments.bundle}: revision {outcome.revision}{sizes}; open sessions keep theirs")
    return 0


VERB = Verb("bank", "Shows and changes the memory bank of a bundle.", add_arguments, run)
