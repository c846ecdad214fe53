"""Writes a bundle (docs/bundle-format.md) from a checkpoint: programs, bank, router, tokenizer; the manifest last."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open

from edge_export.quiet import quiet_libraries
from edge_export.routers import write_routers
from edge_export.source import ExportConfig, Source
from edge_pretrain.checkpoint import Checkpoint, CheckpointError
from edge_pretrain.checkpoint import load as load_checkpoint
from edge_pretrain.embed import EMBEDDER_ID
from edge_runtime import _core
from edge_runtime.bank import LevelReader
from edge_runtime.errors import BadFormatError

Report = Callable[[str], None]
VERSIONED = ("edge-runtime", "torch", "executorch", "transformers", "tokenizers", "safetensors", "numpy")
# The memory kernel reads these in place.
BANK_DTYPES = ("f32", "f16", "bf16", "i8", "i4")


@dataclass(frozen=True)
class _Writer:
    """One export under way, into a directory that nobody reads yet."""

    root: Path
    source: Source
    config: ExportConfig
    checkpoint: Checkpoint
    report: Report

    def write(self, provenance: dict[str, Any]) -> None:
        for folder in ("memory", "router"):
            (self.root / folder).mkdir(parents=True)
        checkpoint = self.checkpoint
        shutil.copyfile(self.source.file("tokenizer.json"), self.root / "tokenizer.json")
        shutil.copyfile(checkpoint.tree_path, self.root / "router/tree.safetensors")
        tree = _core.Tree(str(self.root / "router/tree.safetensors"))
        levels = [self._level(level, rows) for level, rows in checkpoint.memories.config.levels]
        state = {"format": "edge-runtime.state", "schema": 1, "revision": 1, "blocked": [], "removed": []}
        (self.root / "memory/state-1.json").write_text(json.dumps(state) + "\n", encoding="utf-8")
        make = {"executorch": self._executorch_program, "native": self._native_program}
        programs = [make[engine]() for engine in self.config.engines]
        embedders, default = write_routers(self.root, self.source, self.config, self.report)
        memories = checkpoint.memories.config
        manifest = {
            "format": "edge-runtime.bundle",
            "schema": 1,
            "revision": 1,
            "name": self.config.name,
            "anchor": checkpoint.config["anchor"],
            "tokens": checkpoint.config["tokens"],
            "chat_template": checkpoint.config["chat_template"],
            "generation": checkpoint.config["generation"],
            "tokenizer": {"path": "tokenizer.json", "vocab_size": checkpoint.tokenizer.get_vocab_size()},
            "memory": {
                "kind": "ffn",
                "fanout": memories.fanout,
                "layers": list(memories.layers),
                "levels": levels,
            },
            "router": {
                "tree": "router/tree.safetensors",
                "depth": tree.depth,
                "dim": tree.dim,
                "embedders": embedders,
                "default": default,
            },
            "programs": programs,
            "state": "memory/state-1.json",
            "files": {
                path.relative_to(self.root).as_posix(): file_entry(path)
                for path in sorted(self.root.rglob("*"))
                if path.is_file()
            },
            "provenance": provenance,
        }
        _core.commit_manifest(str(self.root), json.dumps(manifest, indent=2) + "\n")

    def _level(self, level: int, rows: int) -> dict[str, Any]:
        """One level file, block by block: a bank may be larger than memory. Empty clusters get no block."""
        memories, dtype = self.checkpoint.memories.config, self.config.memory_dtype
        nodes = memories.fanout**level
        path = f"memory/level{level}.safetensors"
        kept = self._documents(level).nonzero()[0] if level else np.zeros(1, np.int64)
        self.report(f"{path}: {len(kept)} of {nodes} nodes, r = {rows}, {dtype}")
        d_model = self.checkpoint.anchor.config.d_model
        writer = _core.LevelWriter(
            str(self.root / path),
            level,
            memories.fanout,
            dtype,
            d_model,
            rows,
            list(memories.layers),
            len(kept),
        )
        with safe_open(self.source.file("memories.safetensors"), framework="numpy") as file:
            blocks = file.get_slice(f"level{level}")
            for node in kept:
                writer.append(int(node), blocks[int(node) : int(node) + 1][0])
        writer.finish()
        return {
            "level": level,
            "rows": rows,
            "dtype": dtype,
            "nodes": nodes,
            "block_bytes": LevelReader(self.root / path).spec.stride,
            "files": [path],
        }

    def _documents(self, level: int) -> np.ndarray[Any, np.dtype[np.int32]]:
        with safe_open(self.root / "router/tree.safetensors", framework="numpy") as file:
            documents: np.ndarray[Any, np.dtype[np.int32]] = file.get_tensor(f"documents.{level}")
        return documents

    def _executorch_program(self) -> dict[str, Any]:
        # Here and not above: `torch.export` and the lowering take seconds to import.
        from edge_export.decoder import PagedDecoder
        from edge_export.executorch import export_paged
        from edge_export.quantize import quantize_decoder

        max_prefill, dtype = self._max_prefill(), self.config.dtype_of("executorch")
        self.report(f"anchor.paged.pte: lowering the anchor to XNNPACK, {dtype}")
        decoder = PagedDecoder(self.checkpoint.anchor, self.checkpoint.memories.config.layers)
        quantize_decoder(decoder, dtype)
        with quiet_libraries():
            export_paged(decoder, max_prefill, self.root / "anchor.paged.pte")
        return program_entry(max_prefill, dtype)

    def _native_program(self) -> dict[str, Any]:
        from edge_export.native import PATH, write_native

        dtype = self.config.dtype_of("native")
        self.report(f"{PATH}: packing the anchor's rows, {dtype}")
        write_native(self.checkpoint.anchor, dtype, self.root / PATH)
        return program_entry(self._max_prefill(), dtype) | {"engine": "native", "path": PATH}

    def _max_prefill(self) -> int:
        return min(self.config.max_prefill, self.checkpoint.anchor.config.context_length)


def file_entry(path: Path) -> dict[str, Any]:
    """What the manifest says of a file of the bundle."""
    if path.parent.name == "memory" and path.suffix == ".safetensors":
        sha256, covers = LevelReader(path).tables_sha256(), "tables"
    else:
        with path.open("rb") as file:
            sha256, covers = hashlib.file_digest(file, "sha256").hexdigest(), "file"
    return {"bytes": path.stat().st_size, "sha256": sha256, "covers": covers}


def program_entry(max_prefill: int, dtype: str) -> dict[str, Any]:
    """What the manifest says of the paged program."""
    return {
        "engine": "executorch",
        "flavour": "paged",
        "path": "anchor.paged.pte",
        "method": "forward",
        "max_prefill": max_prefill,
        "dtype": dtype,
        "bank_dtypes": list(BANK_DTYPES),
    }


def export_bundle(source: Source, out: Path, config: ExportConfig, report: Report) -> None:
    """Writes the bundle of a checkpoint to the directory `out`, replacing a bundle that is there.

    It is built beside `out` and gets its name once it is whole.

    Raises:
        BadFormatError: the checkpoint is damaged or its embedder is not the pinned all-MiniLM-L6-v2.
    """
    try:
        checkpoint = load_checkpoint(source.directory)
    except CheckpointError as error:
        raise BadFormatError(str(error)) from None
    embedder = checkpoint.config["embedder"]["id"]
    if embedder != EMBEDDER_ID:
        raise BadFormatError(
            f"{source.file('config.json')}: its tree was built with {embedder}; this exporter has {EMBEDDER_ID}"
        )
    partial, old = (out.with_name(f"{out.name}.{suffix}") for suffix in ("partial", "old"))
    shutil.rmtree(partial, ignore_errors=True)
    provenance = {
        "fingerprint": source.fingerprint(config),
        "checkpoint": checkpoint.config["provenance"],
        "export": config.to_json() | {"versions": {name: metadata.version(name) for name in VERSIONED}},
    }
    _Writer(partial, source, config, checkpoint, report).write(provenance)
    shutil.rmtree(old, ignore_errors=True)
    if out.exists():
        out.rename(old)
    partial.rename(out)
    shutil.rmtree(old, ignore_errors=True)
