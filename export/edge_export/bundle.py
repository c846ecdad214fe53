"""Writes a bundle (docs/bundle-format.md) from an anchor and its memories; the manifest last."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from edge_export.inputs import Inputs, Memories, load_inputs
from edge_export.quiet import quiet_libraries
from edge_export.reference import write_reference
from edge_export.routers import write_routers
from edge_export.source import ExportConfig, Source, bank_dtypes
from edge_runtime import _core
from edge_runtime.bank import LevelReader
from edge_runtime.engines import check_memory_kind
from edge_runtime.errors import InvalidArgumentError

Report = Callable[[str], None]
VERSIONED = ("edge-runtime", "torch", "executorch", "transformers", "tokenizers", "safetensors", "numpy")


@dataclass(frozen=True)
class _Writer:
    """One export under way, into a directory that nobody reads yet."""

    root: Path
    source: Source
    config: ExportConfig
    inputs: Inputs
    report: Report

    def write(self, provenance: dict[str, Any]) -> None:
        inputs = self.inputs
        (self.root / "memory").mkdir(parents=True)
        shutil.copyfile(self.source.file("tokenizer.json"), self.root / "tokenizer.json")
        state = {"format": "edge-runtime.state", "schema": 1, "revision": 1, "blocked": [], "removed": []}
        (self.root / "memory/state-1.json").write_text(json.dumps(state) + "\n", encoding="utf-8")
        memory = router = None
        if inputs.memories is not None:
            memory, router = self._memory(inputs.memories), self._router(inputs.memories)
        # Here and not above: `torch.export` and the lowering take seconds to import.
        with quiet_libraries():
            from edge_export.programs import write_programs

        programs = write_programs(self.root, self.source, inputs, self.config, self.report)
        reference = write_reference(self.root, inputs)
        manifest = {
            "format": "edge-runtime.bundle",
            "schema": 1,
            "revision": 1,
            "name": self.config.name,
            "anchor": inputs.anchor,
            **inputs.settings,
            "tokenizer": {"path": "tokenizer.json", "vocab_size": inputs.tokenizer.get_vocab_size()},
            "memory": memory,
            "router": router,
            "programs": programs,
            "state": "memory/state-1.json",
            "reference": reference,
            "files": {
                path.relative_to(self.root).as_posix(): file_entry(path)
                for path in sorted(self.root.rglob("*"))
                if path.is_file()
            },
            "provenance": provenance,
        }
        _core.commit_manifest(str(self.root), json.dumps(manifest, indent=2) + "\n")

    def _memory(self, memories: Memories) -> dict[str, Any]:
        return {
            "kind": memories.config.kind,
            "fanout": memories.config.fanout,
            "layers": list(memories.config.layers),
            "levels": [self._level(memories, level, rows) for level, rows in memories.config.levels],
        }

    def _router(self, memories: Memories) -> dict[str, Any]:
        path = "router/tree.safetensors"
        (self.root / "router").mkdir()
        shutil.copyfile(memories.tree, self.root / path)
        tree = _core.Tree(str(self.root / path))
        embedders, default = write_routers(self.root, self.source, self.config, self.report)
        return {
            "tree": path,
            "depth": tree.depth,
            "dim": tree.dim,
            "embedders": embedders,
            "default": default,
        }

    def _level(self, memories: Memories, level: int, rows: int) -> dict[str, Any]:
        """One level file, block by block: a bank may be larger than memory. Empty clusters get no block."""
        dtype, nodes = self.config.bank_dtype(level), memories.config.fanout**level
        kind, dimensions = memories.config.type, self.inputs.decoder.config
        path, kept = f"memory/level{level}.safetensors", len(memories.kept(level))
        self.report(f"{path}: {kept} of {nodes} nodes, r = {rows}, {dtype}")
        writer = _core.LevelWriter(
            str(self.root / path),
            level,
            memories.config.fanout,
            dtype,
            dimensions.d_model,
            rows,
            list(memories.config.layers),
            kept,
            kind.name,
            [(tensor, kind.width(dimensions)) for tensor in kind.tensors],
        )
        for node, block in memories.blocks(level):
            writer.append(node, block)
        writer.finish()
        return {
            "level": level,
            "rows": rows,
            "dtype": dtype,
            "nodes": nodes,
            "block_bytes": LevelReader(self.root / path).spec.stride,
            "files": [path],
        }


def file_entry(path: Path) -> dict[str, Any]:
    """What the manifest says of a file of the bundle."""
    if path.parent.name == "memory" and path.suffix == ".safetensors":
        sha256, covers = LevelReader(path).tables_sha256(), "tables"
    else:
        with path.open("rb") as file:
            sha256, covers = hashlib.file_digest(file, "sha256").hexdigest(), "file"
    return {"bytes": path.stat().st_size, "sha256": sha256, "covers": covers}


def export_bundle(source: Source, out: Path, config: ExportConfig, report: Report) -> None:
    """Writes the bundle of a checkpoint to the directory `out`, replacing a bundle that is there.

    It is built beside `out` and gets its name once it is whole.

    Raises:
        BadFormatError, NotFoundError, UnsupportedError: as `load_inputs`.
        UnsupportedError: a program does not read memory of the checkpoint's kind.
        InvalidArgumentError: the configuration does not fit the anchor.
    """
    inputs = load_inputs(source, config.context_length)
    for engine, flavour in config.programs:
        check_memory_kind(inputs.memory_kind, f"{engine}/{flavour}")
    levels = {level for level, _ in inputs.memories.config.levels} if inputs.memories is not None else set()
    if unknown := sorted(set(bank_dtypes(config.memory_dtype)[1]) - levels):
        raise InvalidArgumentError(
            f"--memory-dtype {config.memory_dtype}: there is no memory at level {unknown[0]}"
        )
    partial, old = (out.with_name(f"{out.name}.{suffix}") for suffix in ("partial", "old"))
    shutil.rmtree(partial, ignore_errors=True)
    provenance = {
        "fingerprint": source.fingerprint(config),
        "checkpoint": inputs.provenance,
        "export": config.to_json() | {"versions": {name: metadata.version(name) for name in VERSIONED}},
    }
    _Writer(partial, source, config, inputs, report).write(provenance)
    shutil.rmtree(old, ignore_errors=True)
    if out.exists():
        out.rename(old)
    partial.rename(out)
    shutil.rmtree(old, ignore_errors=True)
