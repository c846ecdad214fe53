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
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from edge_export.samples import OWN, write_sample
from edge_export.source import DTYPES, HF_FAMILIES, PROGRAMS

KIB = 1024
LIBRARIES = [
    "edge_export.bundle", "edge_export.programs", "edge_export.executorch", "edge_export.decoder",
    "edge_export.quantize", "edge_export.onnx_quantize", "edge_export.portable", "edge_export.coreml",
    "edge_export.interpreted", "edge_export.huggingface", "transformers.models.auto.modeling_auto",
]  # fmt: skip


@dataclass(frozen=True)
class Row:
    """seconds and peak_bytes: of the whole export. max_logit_error: the largest of all memories."""

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


def measure(family: str, engine: str, flavour: str, dtype: str, source: tuple[Path, Path | None]) -> Row:
    """One row, in this process, which is to end after it. Failures are rows too."""
    from edge_export.quiet import quiet_libraries
    from edge_runtime.errors import EdgeRuntimeError

    row = Row(family, engine, flavour, dtype, "ok", None, None, None, None, None)
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

    config = ExportConfig(
        "sample", "f32", 32, None, ("static",), row.quantisation, ((row.engine, row.flavour),)
    )
    start = time.perf_counter()
    export_bundle(Source.open(*source), out, config, lambda step: None)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * KIB

    def opened(bundle: Bundle, threads: int, engine: str) -> Engine:
        if engine == "coreml/portable" and sys.platform != "darwin":
            from edge_export.interpreted import InterpretedEngine

            return InterpretedEngine(bundle)
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
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


INTRODUCTION = """# The export matrix

Written by `make export-matrix`: anchors of two layers and width 64 with random weights, one a family, and random
memories in f32 in both layers. The error is the largest difference of a logit from the torch reference in f32, whose
logits are about 1: with no memory, the generic one and a path's, over a prefill and then token by token. "Same
token" is how often the likeliest token is the reference's, in the worst of the three; random weights leave many near
ties. Core ML packages are interpreted, operation by operation. Time is that of the whole export, peak memory that of
its process, of which the libraries that all exporters need are {base:,.0f} MB.

"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/export/matrix.json"))
    parser.add_argument("--table", type=Path, default=Path("docs/export-matrix.md"))
    parser.add_argument("--families", default=",".join((OWN, *HF_FAMILIES)))
    parser.add_argument("--engines", default=",".join(DTYPES))
    parser.add_argument(
        "--jobs", type=int, default=1, help="processes at a time; times are of no use beyond 1"
    )
    arguments = parser.parse_args()
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(LIBRARIES)

    def fresh() -> ProcessPoolExecutor:
        return ProcessPoolExecutor(arguments.jobs, server, max_tasks_per_child=1)

    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        with fresh() as pool:
            base = pool.submit(_resident).result()
            folders = {name: Path(scratch) / name for name in arguments.families.split(",")}
            sources = {name: pool.submit(write_sample, name, folder) for name, folder in folders.items()}
            wanted = [
                (family, engine, flavour, dtype)
                for family in sources
                for engine, flavour in PROGRAMS
                if engine in arguments.engines.split(",")
                for dtype in DTYPES[engine]
            ]
            made = {family: source.result() for family, source in sources.items()}
        with fresh() as pool:
            futures = [pool.submit(measure, *one, made[one[0]]) for one in wanted]
            for one, future in zip(wanted, futures, strict=True):
                try:
                    rows.append(future.result())
                except BrokenProcessPool:
                    rows.append(Row(*one, "failed: its process died", None, None, None, None, None))
                print(*one, rows[-1].status, file=sys.stderr, flush=True)
                # After each row: a run that is cut short keeps what it has measured.
                _write(arguments.out, json.dumps([asdict(row) for row in rows], indent=2) + "\n")
                _write(arguments.table, INTRODUCTION.format(base=base / 1e6) + table(rows) + "\n")


def _resident() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * KIB


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
