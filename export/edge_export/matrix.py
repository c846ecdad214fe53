"""`python -m edge_export.matrix`: small anchors of every family through every program, as a table.

Each row is exported in a process of its own, so that its peak memory is its own, and compared with the reference.
Processes are forked from one that has imported the libraries: importing them took longer than most exports.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import sys
import tempfile
import time
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from edge_export.samples import OWN, write_sample
from edge_export.source import DTYPES, PROGRAMS
from edge_pretrain.hf_folder import HF_FAMILIES
from edge_pretrain.provenance import git_revision
from edge_runtime.errors import BadFormatError

KIB = 1024
LIBRARIES = [
    "edge_export.bundle", "edge_export.programs", "edge_export.executorch", "edge_export.decoder",
    "edge_export.quantize", "edge_export.onnx_quantize", "edge_export.portable", "edge_export.coreml",
    "edge_export.interpreted", "edge_export.huggingface", "transformers.models.auto.modeling_auto",
]  # fmt: skip
COLUMNS = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())


# An engine, and flavour/delegate where the delegate is not the engine's usual one; a delegate has its own dtypes.
MEASURED = (*PROGRAMS, ("executorch", "portable/coreml"))


def dtypes_of(engine: str, flavour: str) -> tuple[str, ...]:
    return DTYPES[flavour.partition("/")[2] or engine]


@dataclass(frozen=True)
class Row:
    """seconds and peak_bytes: of the whole export. max_logit_error: the largest of all memories.

    revision: of the sources that it was measured with; None where that is not known.
    """

    family: str
    engine: str
    flavour: str
    quantisation: str
    status: str
    max_logit_error: float | None
    agreement: float | None
    bytes: int | None
    seconds: float | None
    peak_bytes: int | None
    revision: str | None = None

    @property
    def key(self) -> tuple[str, str, str, str]:
        return (self.family, self.engine, self.flavour, self.quantisation)


def kept(path: Path) -> list[Row]:
    """The rows of an earlier run; none where there is no file.

    Raises BadFormatError where the file is something else.
    """
    if not path.is_file():
        return []
    try:
        return [Row(**row) for row in json.loads(path.read_text(encoding="utf-8"))]
    except (ValueError, TypeError) as error:
        raise BadFormatError(
            f"{path}: not a matrix ({error}): move it away, or name another with --out"
        ) from error


def ordered(rows: Iterable[Row]) -> list[Row]:
    """By family, then engine, in the order of the lists that they are from."""
    families, programs = [OWN, *HF_FAMILIES], list(MEASURED)

    def place(row: Row) -> tuple[int, int, int]:
        dtypes = dtypes_of(row.engine, row.flavour)
        return (
            families.index(row.family),
            programs.index((row.engine, row.flavour)),
            dtypes.index(row.quantisation) if row.quantisation in dtypes else len(dtypes),
        )

    return sorted(rows, key=place)


def measure(family: str, engine: str, flavour: str, dtype: str, source: tuple[Path, Path | None]) -> Row:
    """One row, in this process, which is to end after it. Failures are rows too."""
    from edge_export.quiet import quiet_libraries
    from edge_runtime.errors import EdgeRuntimeError

    row = Row(family, engine, flavour, dtype, "ok", None, None, None, None, None, git_revision())
    try:
        with quiet_libraries(), tempfile.TemporaryDirectory() as scratch:
            return _measured(row, source, Path(scratch) / "sample.bundle")
    except EdgeRuntimeError as error:
        # Without the path, which is another at every run.
        return replace(row, status=f"refused: {str(error).split(': ', 1)[-1]}")
    except Exception as error:
        return replace(row, status=f"failed: {type(error).__name__}: {str(error).splitlines()[0]}")


def _measured(row: Row, source: tuple[Path, Path | None], out: Path) -> Row:
    from edge_export.bundle import export_bundle
    from edge_export.source import ExportConfig, Source
    from edge_runtime.bundle import Bundle
    from edge_runtime.comparison import compare
    from edge_runtime.engines import Engine, open_engine

    flavour, _, delegate = row.flavour.partition("/")
    config = ExportConfig(
        "sample",
        "f32",
        32,
        None,
        ("static",),
        row.quantisation,
        ((row.engine, flavour),),
        delegate=delegate or "xnnpack",
    )
    start = time.perf_counter()
    export_bundle(Source.open(*source), out, config, lambda step: None)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * KIB

    def opened(bundle: Bundle, threads: int, engine: str) -> Engine:
        name, _, flavour = engine.partition("/")
        if "coreml" in (name, delegate) and sys.platform != "darwin":
            from edge_export.interpreted import interpreted

            return interpreted(bundle, name, flavour)
        return open_engine(bundle, threads, engine)

    bundle = Bundle.open(out)
    compared = list(compare(bundle, 2, opened))
    row = replace(row, bytes=bundle.bytes_of(bundle.manifest.programs[0]), seconds=seconds, peak_bytes=peak)
    if reasons := [one.reason for one in compared if one.reason]:
        return replace(row, status=f"exported, not run: {reasons[0]}")
    errors = [one.max_logit_error for one in compared if one.max_logit_error is not None]
    alike = [one.agreement for one in compared if one.agreement is not None]
    return replace(row, max_logit_error=max(errors), agreement=min(alike))


def table(rows: list[Row]) -> str:
    """As Markdown."""
    head = [
        "family",
        "engine",
        "flavour",
        "weights",
        "status",
        "max logit error",
        "same token",
        "kB",
        "s",
        "peak MB",
        "revision",
    ]
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for row in rows:
        cells = [row.family, row.engine, row.flavour, row.quantisation, row.status]
        cells += [
            "-" if value is None else form.format(value / unit)
            for value, form, unit in (
                (row.max_logit_error, "{:.1e}", 1),
                (row.agreement, "{:.0%}", 1),
                (row.bytes, "{:,.0f}", 1e3),
                (row.seconds, "{:.0f}", 1),
                (row.peak_bytes, "{:,.0f}", 1e6),
            )
        ]
        cells.append(row.revision[:7] if row.revision else "-")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


INTRODUCTION = """# The export matrix

Written by `make export-matrix`: anchors of two layers and width 64 with random weights, one a family, and random
memories in f32 in both layers. The error is the largest difference of a logit from the torch reference in f32, whose
logits are about 1: with no memory, the generic one and a path's, over a prefill and then token by token. "Same
token" is how often the likeliest token is the reference's, in the worst of the three; random weights leave many near
ties. Core ML packages, those that are ExecuTorch's delegates included, are interpreted, operation by operation. Time is
that of the whole export, peak memory that of its process, of which the libraries that all exporters need are
{base:,.0f} MB. The revision is that of the sources a row was measured with: a second run measures only rows of other
sources, of the families, engines and flavours asked for.

"""


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/export/matrix.json"))
    parser.add_argument("--table", type=Path, default=Path("docs/export-matrix.md"))
    parser.add_argument("--families", default=",".join((OWN, *HF_FAMILIES)))
    parser.add_argument("--engines", default=",".join(DTYPES))
    parser.add_argument("--flavours", default=",".join(dict.fromkeys(flavour for _, flavour in MEASURED)))
    parser.add_argument(
        "--jobs", type=int, default=1, help="processes at a time; times are of no use beyond 1"
    )
    arguments = parser.parse_args(argv)
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(LIBRARIES)

    def fresh() -> ProcessPoolExecutor:
        return ProcessPoolExecutor(arguments.jobs, server, max_tasks_per_child=1)

    try:
        rows = {row.key: row for row in kept(arguments.out)}
    except BadFormatError as error:
        print(error, file=sys.stderr)
        return 1
    wanted = [
        (family, engine, flavour, dtype)
        for family in arguments.families.split(",")
        for engine, flavour in MEASURED
        if engine in arguments.engines.split(",") and flavour in arguments.flavours.split(",")
        for dtype in dtypes_of(engine, flavour)
    ]
    now = git_revision()
    # Rows of other sources are measured again; those of these sources were, before the run was cut short.
    missing = [key for key in wanted if key not in rows or now is None or rows[key].revision != now]
    with tempfile.TemporaryDirectory() as scratch:
        with fresh() as pool:
            base = pool.submit(_resident).result()
            folders = {name: Path(scratch) / name for name in dict.fromkeys(key[0] for key in missing)}
            sources = {name: pool.submit(write_sample, name, folder) for name, folder in folders.items()}
            made = {family: source.result() for family, source in sources.items()}
        with fresh() as pool, Progress(*COLUMNS, console=Console(stderr=True)) as progress:
            task = progress.add_task("exporting", total=len(missing))
            futures = [pool.submit(measure, *key, made[key[0]]) for key in missing]
            for key, future in zip(missing, futures, strict=True):
                try:
                    row = future.result()
                except BrokenProcessPool:
                    row = Row(*key, "failed: its process died", None, None, None, None, None, now)
                rows[key] = row
                progress.console.print(*key, row.status, markup=False, highlight=False)
                progress.advance(task)
                # After each row: a run that is cut short keeps what it has measured.
                _write(
                    arguments.out,
                    json.dumps([asdict(row) for row in ordered(rows.values())], indent=2) + "\n",
                )
    found = ordered(rows.values())
    _write(arguments.table, INTRODUCTION.format(base=base / 1e6) + table(found) + "\n")
    print(f"wrote {arguments.out} and {arguments.table}: {len(found)} rows")
    return 0


def _resident() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * KIB


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
