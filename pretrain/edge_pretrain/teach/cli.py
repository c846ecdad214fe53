"""`edge-runtime teach`: documents into a bundle's bank. torch is loaded only once the arguments are good."""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from edge_runtime.cli.verb import Verb
from edge_runtime.errors import BadFormatError, InvalidArgumentError

INTERRUPTED = 130
OTHER_QUESTIONS = 300
ROWS = 16


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Teaches documents to a bundle: blocks of its memory bank are trained on them, with the anchor and all other "
        "blocks as they are. docs/teach.md tells how, and what it reaches."
    )
    parser.add_argument(
        "bundle", type=Path, metavar="BUNDLE", help="the bundle's directory; it stays as it is"
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="of .txt, .md, .jsonl and .pdf files")
    parser.add_argument(
        "-o", "--out", type=Path, required=True, metavar="BUNDLE2", help="the bundle that is written"
    )
    parser.add_argument(
        "--checkpoint",
        type=Path,
        metavar="DIR",
        help="the training checkpoint whose anchor is trained against (default: the bundle's f32 or f16 native anchor)",
    )
    parser.add_argument(
        "--replay",
        type=Path,
        metavar="FOLDER",
        help="documents that the bank knew before, to be learnt beside",
    )
    parser.add_argument(
        "--into",
        choices=("personal", "leaf"),
        default="personal",
        help="fresh blocks in a level of their own, or the bank's own blocks (default: personal)",
    )
    parser.add_argument("--rows", type=int, help=f"of a personal block and layer (default: {ROWS})")
    parser.add_argument("--epochs", type=int, default=20, help="over the documents (default: 20)")
    parser.add_argument("--learning-rate", type=float, default=1e-2, help="default: 0.01")
    parser.add_argument(
        "--penalty",
        type=float,
        default=1e-4,
        help="of the squared distance from a block's old self (default: 1e-4)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of everything that is random (default: 0)")
    parser.add_argument("--threads", type=int, default=2, help="of torch and of the engine (default: 2)")
    parser.add_argument(
        "--questions", type=Path, metavar="Q.jsonl", help="asked before and after: prompt and answer a line"
    )
    parser.add_argument(
        "--other-questions",
        type=Path,
        metavar="Q.jsonl",
        help=f"that should stay right; {OTHER_QUESTIONS} are drawn (default: the checkpoint's, with --questions)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def _check(arguments: argparse.Namespace) -> None:
    rows = ROWS if arguments.rows is None else arguments.rows
    if min(rows, arguments.epochs, arguments.threads) < 1 or arguments.seed < 0:
        raise InvalidArgumentError("--rows, --epochs and --threads must be 1 or more, and --seed 0 or more")
    if not (0 < arguments.learning_rate < math.inf and 0 <= arguments.penalty < math.inf):
        raise InvalidArgumentError(
            "--learning-rate must be above 0, and --penalty 0 or more, and both finite"
        )
    if arguments.other_questions is not None and arguments.questions is None:
        raise InvalidArgumentError("--other-questions are asked beside --questions: give both")
    if arguments.into == "leaf" and arguments.rows is not None:
        raise InvalidArgumentError("--rows is of a personal level: --into leaf trains blocks as they are")


def run(arguments: argparse.Namespace) -> int:
    _check(arguments)
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    with console.status("loading torch"):
        import torch

        from edge_pretrain.teach.examination import read_asked, right_share
        from edge_pretrain.teach.pipeline import Request, teach
        from edge_pretrain.teach.training import TeachConfig, TeachingInterruptedError

        torch.set_num_threads(arguments.threads)
    asked = {}
    if arguments.questions is not None:
        asked["taught"] = read_asked(arguments.questions)
        others = arguments.other_questions
        if others is None and arguments.checkpoint is not None:
            others = arguments.checkpoint / "questions.jsonl"
        if others is not None:
            asked["other"] = read_asked(others, OTHER_QUESTIONS, arguments.seed)
    config = TeachConfig(
        arguments.epochs,
        learning_rate=arguments.learning_rate,
        penalty=arguments.penalty,
        seed=arguments.seed,
    )
    request = Request(
        arguments.bundle,
        arguments.folder,
        arguments.out,
        arguments.checkpoint,
        arguments.replay,
        arguments.into,
        ROWS if arguments.rows is None else arguments.rows,
        arguments.threads,
        config,
    )
    started, cpu = time.monotonic(), time.process_time()
    columns = (
        TextColumn("teaching"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]:.3f}"),
        TimeRemainingColumn(),
    )
    try:
        with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
            task = bar.add_task("teaching", total=None, loss=float("nan"))
            result = teach(
                request, lambda done, total, loss: bar.update(task, completed=done, total=total, loss=loss)
            )
    except (TeachingInterruptedError, KeyboardInterrupt) as error:
        print(f"edge-runtime: {error or 'stopped; run again to resume'}", file=sys.stderr)
        return INTERRUPTED
    except ValueError as error:
        raise BadFormatError(str(error)) from None
    record: dict[str, Any] = {
        "bundle": str(arguments.out),
        "source": result.source,
        "documents": result.documents,
        "sections": result.sections,
        "skipped": list(result.skipped),
        "seconds": round(time.monotonic() - started, 1),
        "cpu_seconds": round(time.process_time() - cpu, 1),
        "blocks_changed": len(result.changed),
        "nodes": [f"{level}:{node}" for level, node in result.changed],
    }
    for name, prefix in (("taught", ""), ("other", "other_")):
        for when, bundle in (("before", arguments.bundle), ("after", arguments.out)):
            share = right_share(bundle, asked[name], arguments.threads) if name in asked else None
            record[prefix + when] = None if share is None else round(share, 2)
    if arguments.json:
        print(json.dumps(record))
    else:
        _show(record, console)
    return 0


def _show(record: dict[str, Any], console: Console) -> None:
    console.print(record["source"])
    console.print(
        f"{record['bundle']}: {record['documents']} documents, {record['sections']} sections, "
        f"{record['blocks_changed']} blocks changed in {record['seconds']} s ({record['cpu_seconds']} s of CPU)"
    )
    if record["skipped"]:
        console.print(f"known already: {', '.join(record['skipped'])}")
    if record["before"] is None:
        return
    table = Table("right answers, percent", "before", "after")
    for name, prefix in (("about the documents", ""), ("others", "other_")):
        if record[f"{prefix}before"] is not None:
            table.add_row(name, f"{record[f'{prefix}before']:.1f}", f"{record[f'{prefix}after']:.1f}")
    Console(highlight=False).print(table)


VERB = Verb("teach", "teach documents to a bundle's memory bank", add_arguments, run)
