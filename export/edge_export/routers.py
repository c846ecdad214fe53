"""The routers of a bundle: which embedders it carries, and which one it uses by default."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edge_export.quiet import quiet_libraries
from edge_export.source import (
    ENGINE_ROUTERS,
    FALLBACK_ROUTER,
    ROUTER_REPORT,
    ROUTER_TABLES,
    ExportConfig,
    Source,
)
from edge_pretrain.embed import MAX_TOKENS, MiniLM
from edge_pretrain.router.config import MADE_FROM
from edge_runtime.errors import BadFormatError, InvalidArgumentError

Report = Callable[[str], None]
STATIC = "static"
STATIC_ENTRY = {"name": STATIC, "engine": STATIC, "path": ROUTER_TABLES, "tokenizer": "tokenizer.json"}


def write_routers(
    root: Path, source: Source, config: ExportConfig, report: Report
) -> tuple[list[dict[str, Any]], str]:
    """Writes root/router's embedders; returns the manifest's entries and the name of the default.

    Raises:
        InvalidArgumentError: the configuration asks for a static router that the checkpoint does not have.
        BadFormatError: the checkpoint's static router is damaged or belongs to another training.
    """
    verdict = None
    if STATIC in (config.routers or (STATIC,)):
        if source.memory_file(ROUTER_REPORT).is_file():
            verdict = _verdict(source)
        else:
            folder = source.memories or source.directory
            hint = f"{folder} has no static router: `python -m edge_pretrain.router train` makes it"
            if config.routers is not None:
                raise InvalidArgumentError(hint)
            report(f"router: {hint}")
    names, default = config.routers or _own(config, verdict), None
    entries = []
    for name in names:
        if name == STATIC and verdict is not None:
            shutil.copyfile(source.memory_file(ROUTER_TABLES), root / ROUTER_TABLES)
            entries.append(STATIC_ENTRY)
            default = STATIC if verdict["default"] or len(names) == 1 else None
            report(f"router: {_said(verdict)}")
        else:
            entries.append(_program(root, name, config, report))
    return entries, default or next(name for name in names if name != STATIC)


def _own(config: ExportConfig, verdict: dict[str, Any] | None) -> tuple[str, ...]:
    """The static router where there is one, and the engines' neural ones, or the fallback where nothing else is fit."""
    static = (STATIC,) if verdict is not None else ()
    neural = dict.fromkeys(ENGINE_ROUTERS[engine] for engine in config.engines if engine in ENGINE_ROUTERS)
    if not neural and (verdict is None or not verdict["default"]):
        return (*static, FALLBACK_ROUTER)
    return (*static, *neural)


def _said(verdict: dict[str, Any]) -> str:
    """Why the static router is the default, or is not."""
    found = verdict["validation"]
    static, teacher = found["answers"]["static"], found["answers"]["minilm"]
    return (
        f"static {'is' if verdict['default'] else 'is not'} fit to be the default: leaf agreement "
        f"{found['agreement'][-1]:.1%}, answers {static:.1%} beside {teacher:.1%} with MiniLM "
        f"(asked for: {verdict['rule']})"
    )


def _verdict(source: Source) -> dict[str, Any]:
    """The static router's report, checked against the files that it speaks of. Raises BadFormatError."""
    path = source.memory_file(ROUTER_REPORT)
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        made_of = record["sha256"]
        wanted = {ROUTER_TABLES: made_of[Path(ROUTER_TABLES).name]}
        wanted |= {name: made_of[name] for name in MADE_FROM}
        bool(record["default"]), record["validation"]["agreement"][-1], record["rule"]
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise BadFormatError(f"{path}: not a router's report ({error!r}): train the router again") from None
    for name, sha256 in wanted.items():
        # The tables are over the anchor's own tokens.
        file = source.file(name) if name == "tokenizer.json" else source.memory_file(name)
        if hashlib.sha256(file.read_bytes()).hexdigest() != sha256:
            raise BadFormatError(f"{file}: not the file that {path.name} speaks of: train the router again")
    return record


def _program(root: Path, name: str, config: ExportConfig, report: Report) -> dict[str, Any]:
    # Here and not above: `torch.export` and the lowering take seconds to import, and torchao logs what it lacks.
    with quiet_libraries():
        from edge_export.embedder import export_embedder, export_onnx_embedder

    entry, minilm = program_embedder(name), MiniLM(config.embedder)
    report(f"{entry['path']}: all-MiniLM-L6-v2 for {entry['engine']}")
    write = export_onnx_embedder if entry["engine"] == "onnx" else export_embedder
    with quiet_libraries():
        write(minilm, name.endswith("int8"), root / entry["path"])
    shutil.copyfile(minilm.tokenizer_json, root / entry["tokenizer"])
    return entry


def program_embedder(name: str) -> dict[str, Any]:
    """What the manifest says of all-MiniLM-L6-v2 as a program, of that name among ROUTERS."""
    engine, ending = ("onnx", "onnx") if name.startswith("minilm-onnx") else ("executorch", "pte")
    return {
        "name": name,
        "engine": engine,
        "path": f"router/{name}.{ending}",
        "tokenizer": "router/minilm.tokenizer.json",
        "max_tokens": MAX_TOKENS,
        "pooling": "mean",
        "normalize": True,
    }
