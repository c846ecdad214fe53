"""What an export is made from, and whether a bundle is already made from it: decided without loading torch."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edge_runtime.bundle import Bundle
from edge_runtime.errors import EdgeRuntimeError, InvalidArgumentError, NotFoundError

FILES = ("config.json", "anchor.safetensors", "memories.safetensors", "tree.safetensors", "tokenizer.json")
ANCHOR_DTYPES = ("f32", "int8", "8da4w")
NATIVE_DTYPES = ("f32", "f16", "i8", "i4")
ENGINES = ("executorch", "native")
# What the one engine calls the other's.
_SAME = {"executorch": {"i8": "int8", "i4": "8da4w"}, "native": {"int8": "i8", "8da4w": "i4"}}
# What `python -m edge_pretrain.router train` adds.
ROUTER_TABLES, ROUTER_REPORT = "router/static.safetensors", "router/report.json"
ROUTERS = ("static", "minilm", "minilm-int8")
DEFAULT_ROUTERS = ("static", "minilm")


@dataclass(frozen=True)
class ExportConfig:
    """memory_dtype: of the bank. max_prefill: tokens a call. embedder: a directory or Hugging Face id, None for
    the installed package. routers: of ROUTERS; None for DEFAULT_ROUTERS as far as the checkpoint has them.
    anchor_dtype: of the programs' weights, one of ANCHOR_DTYPES or NATIVE_DTYPES. engines: of ENGINES, each of which
    gets a program; the first is the bundle's default."""

    name: str
    memory_dtype: str
    max_prefill: int
    embedder: str | None
    routers: tuple[str, ...] | None = None
    anchor_dtype: str = "f32"
    engines: tuple[str, ...] = ("executorch",)

    def dtype_of(self, engine: str) -> str:
        """What that engine calls `anchor_dtype`. InvalidArgumentError where it has no such."""
        dtype = _SAME[engine].get(self.anchor_dtype, self.anchor_dtype)
        known = NATIVE_DTYPES if engine == "native" else ANCHOR_DTYPES
        if dtype not in known:
            raise InvalidArgumentError(f"--anchor-dtype {dtype!r}: {engine} has {', '.join(known)}")
        return dtype

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Source:
    """A checkpoint directory."""

    directory: Path

    @classmethod
    def open(cls, directory: Path) -> Source:
        """Raises NotFoundError where a file is missing."""
        for name in FILES:
            if not (directory / name).is_file():
                raise NotFoundError(
                    f"{directory / name}: no such file: a checkpoint has it; "
                    f"run `edge-runtime pretrain` to its end, or name its checkpoint directory"
                )
        return cls(directory)

    def file(self, name: str) -> Path:
        return self.directory / name

    def fingerprint(self, config: ExportConfig) -> str:
        """SHA-256 over the checkpoint's files and the export's configuration."""
        digest = hashlib.sha256(json.dumps(config.to_json(), sort_keys=True).encode())
        optional = [name for name in (ROUTER_TABLES, ROUTER_REPORT) if self.file(name).is_file()]
        for name in (*FILES, *optional):
            with self.file(name).open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        return digest.hexdigest()

    def is_exported(self, out: Path, config: ExportConfig) -> bool:
        """Whether `out` is a whole bundle made from these files with this configuration."""
        try:
            return Bundle.open(out).manifest.provenance.get("fingerprint") == self.fingerprint(config)
        except EdgeRuntimeError:
            return False
