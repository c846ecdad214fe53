"""What an export is made from, and whether a bundle is already made from it: decided without loading torch."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edge_runtime.bundle import Bundle
from edge_runtime.errors import BadFormatError, EdgeRuntimeError, NotFoundError, UnsupportedError

FILES = ("config.json", "anchor.safetensors", "memories.safetensors", "tree.safetensors", "tokenizer.json")
ANCHOR_DTYPES = ("f32", "int8", "8da4w")
# What `python -m edge_pretrain.router train` adds.
ROUTER_TABLES, ROUTER_REPORT = "router/static.safetensors", "router/report.json"
ROUTERS = ("static", "minilm", "minilm-int8")
DEFAULT_ROUTERS = ("static", "minilm")
# Hugging Face's `model_type`s, and who they are. SmolLM2 is a llama.
HF_FAMILIES = {
    "llama": "Llama 3, SmolLM2",
    "qwen2": "Qwen 2.5",
    "qwen3": "Qwen 3",
    "gemma3_text": "Gemma 3 (text)",
    "smollm3": "SmolLM3",
    "olmo2": "OLMo 2",
}


@dataclass(frozen=True)
class ExportConfig:
    """memory_dtype: of the bank. max_prefill: tokens a call. embedder: a directory or Hugging Face id, None for
    the installed package. routers: of ROUTERS; None for DEFAULT_ROUTERS as far as the checkpoint has them.
    anchor_dtype: of the program's weights, one of ANCHOR_DTYPES."""

    name: str
    memory_dtype: str
    max_prefill: int
    embedder: str | None
    routers: tuple[str, ...] | None = None
    anchor_dtype: str = "f32"

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


def hf_config(folder: Path) -> dict[str, Any]:
    """A Hugging Face folder's config.json.

    Raises:
        BadFormatError: not a JSON object with a model_type.
        UnsupportedError: a family that is not in HF_FAMILIES.
    """
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadFormatError(f"{path}: not readable as JSON ({error}): copy the checkpoint again") from None
    family = config.get("model_type") if isinstance(config, dict) else None
    if not isinstance(family, str):
        raise BadFormatError(f"{path}: it has no model_type: name the folder of a Hugging Face model")
    if family not in HF_FAMILIES:
        known = ", ".join(f"{name} ({who})" for name, who in HF_FAMILIES.items())
        raise UnsupportedError(f"{path}: architecture {family!r} is not supported; there are {known}")
    assert isinstance(config, dict)
    return config
