"""What quantisation costs: every anchor dtype with every bank dtype, for each engine, beside f32.

    python -m edge_bench.quantisation RUN/checkpoint

Exports the checkpoint once for each anchor dtype, writes its bank in each dtype, and has each program answer the
checkpoint's held-out questions with the memory that is fetched for them.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from edge_bench import machine
from edge_bench.command import guarded, say
from edge_bench.quantised import Asked, answers, asked, decode_speed, discard, sizes, with_bank
from edge_bench.report import table
from edge_runtime.bundle import Bundle
from edge_runtime.cli.evaluate import read_questions
from edge_runtime.cli.main import Parser
from edge_runtime.errors import InvalidArgumentError
from edge_runtime.runtime import Runtime

PROGRAM, SCHEMA = "edge_bench.quantisation", 1
ENGINES = {"native": "paged", "executorch": "paged", "onnx": "portable"}
ANCHORS = ("f32", "f16", "int8", "8da4w")
BANKS = ("f32", "f16", "bf16", "i8", "i4")


def banks(levels: Sequence[int]) -> dict[str, dict[int, str]]:
    """Dtypes by level of each choice: one for all, and int4 where most of a bank's bytes are, in its deepest level."""
    found = {dtype: dict.fromkeys(levels, dtype) for dtype in BANKS}
    return found | {f"i8, level {levels[-1]} i4": dict.fromkeys(levels, "i8") | {levels[-1]: "i4"}}


def exported(checkpoint: Path, root: Path, engines: Sequence[str]) -> Iterator[Bundle]:
    """One bundle for each anchor dtype, with the programs of the engines that have it, and a bank in f32."""
    from edge_export.bundle import export_bundle
    from edge_export.source import ExportConfig, Source

    for anchor in ANCHORS:

        def config(programs: tuple[tuple[str, str], ...], anchor: str = anchor) -> ExportConfig:
            return ExportConfig(anchor, "f32", 64, None, ("static",), anchor, programs)

        able = []
        for engine in engines:
            try:
                config(()).dtype_of(engine)
            except InvalidArgumentError:
                continue
            able.append((engine, ENGINES[engine]))
        if able:
            export_bundle(
                Source.open(checkpoint),
                root / anchor,
                config(tuple(able)),
                lambda step: say(PROGRAM, step),
            )
            yield Bundle.open(root / anchor)


def measure(arguments: argparse.Namespace, command: str, scratch: Path) -> dict[str, Any]:
    every = read_questions(arguments.checkpoint / "questions.jsonl", None)
    step = max(1, len(every) // arguments.questions)
    questions: list[Asked] = []
    rows: list[dict[str, Any]] = []
    for bundle in exported(arguments.checkpoint, scratch, arguments.engines.split(",")):
        memory = bundle.manifest.memory
        assert memory is not None  # a checkpoint has one
        for bank, dtypes in banks([level.level for level in memory.levels]).items():
            stored = with_bank(bundle, scratch / "bank", dtypes)
            for program in stored.manifest.programs:
                runtime = Runtime.open(
                    stored.directory, engine=f"{program.engine}/{program.flavour}", threads=arguments.threads
                )
                questions = questions or asked(runtime, every[::step][: arguments.questions])
                row = {
                    "engine": program.engine, "flavour": program.flavour, "anchor": program.dtype, "bank": bank,
                    **answers(runtime, questions, arguments.texts),
                    **decode_speed(runtime, questions[0]),
                    **sizes(runtime, program),
                }  # fmt: skip
                rows.append(row)
                say(PROGRAM, f"{program.engine} {program.dtype}, bank {bank}: {row['accuracy']:.1%}")
            discard(stored)
    rows.sort(key=lambda row: list(ENGINES).index(row["engine"]))
    return {
        "schema": SCHEMA,
        "tool": PROGRAM,
        "anchor_parameters": bundle.manifest.anchor.parameters,
        "questions": len(questions),
        "rare_questions": sum(question.rare for question in questions),
        "texts": min(arguments.texts, len(questions)),
        "threads": arguments.threads,
        "rows": rows,
        "machine": machine.machine(arguments.checkpoint),
        "load": machine.load(),
        "versions": machine.versions(),
        "revision": machine.revision(),
        "command": command,
    }


def _beside(row: dict[str, Any], rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The row of the same engine in f32 throughout."""
    return next(
        one for one in rows if (one["engine"], one["anchor"], one["bank"]) == (row["engine"], "f32", "f32")
    )


def markdown(record: dict[str, Any]) -> str:
    rows: list[dict[str, Any]] = record["rows"]
    head = (
        "anchor",
        "bank",
        "right",
        "rarest fifth",
        "perplexity",
        "of f32's",
        "program",
        "bank",
        "fetched",
        "tok/s",
    )
    parts = [
        "# What quantisation costs",
        f"Written by `{record['command']}`. An anchor of {record['anchor_parameters']:,} parameters and its bank, each "
        f"engine's programs beside their f32. Right: greedy answers to {record['questions']} held-out questions, "
        f"spread over the file, that are exactly right with the memory that is fetched ({record['rare_questions']} of "
        f"them about the rarest fifth). Perplexity: of the tokens of the first {record['texts']} questions and their "
        "answers, each given all before it. Sizes in kB: the program's file, the level files, the blocks of one path. "
        f"tok/s: decoding with memory, the median of five runs, {record['threads']} threads; the load average was "
        f"{record['load'][0]} (beyond 1 other work took part: then do not compare speeds), and an anchor this small "
        "says little about speed, which docs/benchmarks.md measures.",
        "A bank's dtype is chosen a level: `--memory-dtype i8,2=i4` stores level 2 in int4 and the others in int8.",
    ]  # fmt: skip
    for engine in dict.fromkeys(row["engine"] for row in rows):
        body = []
        for row in (row for row in rows if row["engine"] == engine):
            base = _beside(row, rows)
            body.append([
                row["anchor"], row["bank"], f"{row['accuracy']:.1%}", f"{row['accuracy_rare']:.1%}",
                f"{row['perplexity']:.4f}", f"{row['perplexity'] / base['perplexity'] - 1:+.2%}",
                *(f"{row[key] / 1e3:,.0f}" for key in ("program_bytes", "bank_bytes", "fetched_bytes")),
                f"{row['decode_tokens_per_s']:,.0f}",
            ])  # fmt: skip
        flavour = next(row["flavour"] for row in rows if row["engine"] == engine)
        parts += [f"## {engine}, {flavour}", table(head, body)]
    return "\n\n".join(parts) + "\n"


def run(arguments: argparse.Namespace) -> int:
    if unknown := sorted(set(arguments.engines.split(",")) - set(ENGINES)):
        raise InvalidArgumentError(f"--engines {unknown[0]!r}: there are {', '.join(ENGINES)}")
    with tempfile.TemporaryDirectory() as scratch:
        record = measure(arguments, arguments.command, Path(scratch))
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    say(PROGRAM, f"wrote {arguments.out}; docs/quantisation.md tells it: python -m edge_bench.document")
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    parser = Parser(prog=f"python -m {PROGRAM}", description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path, help="what `edge-runtime pretrain` wrote, RUN/checkpoint")
    parser.add_argument("--questions", type=int, default=300, help="how many are answered (default: 300)")
    parser.add_argument("--texts", type=int, default=40, help="how many make the perplexity (default: 40)")
    parser.add_argument(
        "--engines", default=",".join(ENGINES), help=f"of {', '.join(ENGINES)} (default: all)"
    )
    parser.add_argument("--threads", type=int, default=2, help="of the engines (default: 2)")
    parser.add_argument("--out", type=Path, default=Path("docs/records/quantisation-demo.json"))
    parser.set_defaults(command=machine.command(PROGRAM, arguments))
    return guarded(parser, run, arguments)


if __name__ == "__main__":
    sys.exit(main())
