"""The records of the benchmarks, whichever tool wrote them: reading them, and how each is told and drawn.

A record is a JSON object with `schema`, `tool` and the tool's own keys. A tool that tells or draws its record in a way
of its own stands in TOLD; the others' numbers and tables are shown as they are.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_runtime.errors import BadFormatError

SCHEMA = 1  # of records: newer ones are not read


@dataclass(frozen=True)
class Told:
    """title of a record; module:function that makes markdown of it, and a picture, where there is one."""

    title: str
    markdown: str
    draw: str | None = None


TOLD = {
    "edge_bench.bench": Told(
        "Speed, requests, memory", "edge_bench.bench_verb.tables:markdown", "edge_bench.bench_verb.draw:draw"
    ),
    "edge_bench.footprint": Told(
        "Footprint", "edge_bench.footprint.tables:markdown", "edge_bench.footprint.draw:draw"
    ),
    "edge_bench.kernels": Told(
        "What memory costs in time", "edge_bench.kernel_report:markdown", "edge_bench.kernel_report:draw"
    ),
    "edge_bench.iobench": Told("Reading blocks", "edge_bench.report:markdown", "edge_bench.plot:draw"),
    "edge_bench.soak": Told("Fetches under a memory limit", "edge_bench.soak:markdown"),
    "edge_bench.peers": Told("Beside other runtimes", "edge_bench.peers.tables:markdown"),
    "edge_bench.peers.limits": Told("Decoding under a memory limit", "edge_bench.peers.limits:markdown"),
    "edge_bench.quantisation": Told("What quantisation costs", "edge_bench.quantisation:markdown"),
    "edge_bench.llama_loss": Told("Quantisation beside llama.cpp", "edge_bench.llama_loss:markdown"),
    "edge_bench.answer_limit": Told("Answers under a limit", "edge_bench.answer_limit:markdown"),
}


def read_record(path: Path) -> dict[str, Any]:
    """
    Raises:
        BadFormatError: not a benchmark's record, or one of a newer version.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, UnicodeDecodeError):
        raise BadFormatError(f"{path}: not JSON") from None
    if not isinstance(record, dict) or not isinstance(record.get("tool"), str) or "schema" not in record:
        raise BadFormatError(f"{path}: not a benchmark's record: it has no schema and tool")
    if not isinstance(record["schema"], int) or record["schema"] > SCHEMA:
        raise BadFormatError(
            f"{path}: a record of schema {record['schema']}: this version reads up to {SCHEMA}"
        )
    return record


def find_records(paths: Sequence[Path], skip: Callable[[str], None]) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Of files, and of folders with one level of folders below. `skip` hears what was left out, and why.

    Other JSON files of a folder are passed over in silence. Raises OSError where a path is not there.
    """
    for path in paths:
        if path.is_dir():
            for file in sorted([*path.glob("*.json"), *path.glob("*/*.json")]):
                try:
                    yield file, read_record(file)
                except BadFormatError as error:
                    if '"tool"' in file.read_text(encoding="utf-8", errors="replace"):
                        skip(str(error))
        else:
            try:
                yield path, read_record(path)
            except BadFormatError as error:
                skip(str(error))


def title(record: dict[str, Any]) -> str:
    told = TOLD.get(record["tool"])
    return told.title if told else str(record["tool"])


def markdown(record: dict[str, Any]) -> str:
    """Without a heading of the first level. BadFormatError where the record lacks what its tool writes."""
    told = TOLD.get(record["tool"])
    try:
        text = str(_function(told.markdown)(record)) if told else plain(record)
    except (KeyError, TypeError, IndexError, AttributeError, StopIteration) as error:
        raise BadFormatError(f"a record of {record['tool']} without {error}: measure it again") from None
    lines = text.strip().splitlines()
    return "\n".join(lines[1:] if lines[:1] and lines[0].startswith("# ") else lines).strip()


def origin(record: dict[str, Any]) -> str:
    """The machine and the versions that a record's figures depend on. BadFormatError where it does not tell them."""
    if not {"machine", "versions"} <= record.keys():
        raise BadFormatError(
            f"a record of {record['tool']} without its machine and versions: measure it again"
        )
    machine = record["machine"]
    memory = f", {machine['memory_bytes'] / 1e9:.0f} GB" if machine["memory_bytes"] else ""
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items() if version)
    return f"{machine['cpu']}, {machine['cores']} cores{memory}, {machine['system']}; {versions}."


def draw(record: dict[str, Any], path: Path) -> bool:
    """Whether there is a picture now. The path's suffix chooses the format."""
    told = TOLD.get(record["tool"])
    if told is None or told.draw is None:
        return False
    _function(told.draw)(record, path)
    return True


def _function(where: str) -> Callable[..., Any]:
    module, _, name = where.partition(":")
    return getattr(importlib.import_module(module), name)  # type: ignore[no-any-return]


def plain(record: dict[str, Any]) -> str:
    """Of a tool that is not known: its numbers and texts, and its tables."""
    from edge_bench.report import table

    scalars = [(f"`{key}`", _cell(value)) for key, value in record.items() if _is_scalar(value)]
    parts = [table(("key", "value"), scalars)]
    for key, value in record.items():
        rows = value if isinstance(value, list) else []
        if rows and all(isinstance(row, dict) for row in rows):
            head = [name for name, cell in rows[0].items() if _is_scalar(cell)]
            if head:
                body = [[_cell(row.get(name)) for name in head] for row in rows]
                parts += [f"### {key.replace('_', ' ')}", table(head, body)]
    return "\n\n".join(parts)


def _is_scalar(value: object) -> bool:
    return value is None or isinstance(value, str | int | float)


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.4g}"
    return "-" if value is None else str(value).replace("|", "\\|").replace("\n", " ")
