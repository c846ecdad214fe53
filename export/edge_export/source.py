"""What an export is made from, and whether a bundle is already made from it: decided without loading torch."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edge_pretrain.hf_folder import HF_FILES, hf_config
from edge_runtime.bundle import Bundle
from edge_runtime.engines import MEMORY_KINDS
from edge_runtime.errors import (
    EdgeRuntimeError,
    InvalidArgumentError,
    NotFoundError,
)

MEMORY_FILES = ("config.json", "memories.safetensors", "tree.safetensors")
FILES = ("config.json", "anchor.safetensors", "memories.safetensors", "tree.safetensors", "tokenizer.json")
ANCHOR_DTYPES = ("f32", "int8", "8da4w")
NATIVE_DTYPES = ("f32", "f16", "i8", "i4")
# What a bank may hold; the memory kernel reads all of these in place.
BANK_DTYPES = ("f32", "f16", "bf16", "i8", "i4")
DTYPES = {
    "executorch": ANCHOR_DTYPES,
    "native": NATIVE_DTYPES,
    "onnx": ANCHOR_DTYPES,
    "coreml": ("f16", "i8", "i4"),
}
# What the one engine calls the other's. Core ML computes in fp16, whatever it is asked for.
_SAME: dict[str, dict[str, str]] = {
    "executorch": {"i8": "int8", "i4": "8da4w"},
    "native": {"int8": "i8", "8da4w": "i4"},
    "onnx": {"i8": "int8", "i4": "8da4w"},
    "coreml": {"f32": "f16", "int8": "i8", "8da4w": "i4"},
}
# The weights where nobody asks for any. Native: i8 decodes nearly twice as fast as f16 out of half the memory and costs
# 0.2% of perplexity and no answers to speak of; i4, twice as fast again, costs answers (docs/quantisation.md).
DEFAULT_DTYPES = {"executorch": "f32", "native": "i8", "onnx": "f32", "coreml": "f16"}
# What `python -m edge_pretrain.router train` adds.
ROUTER_TABLES, ROUTER_REPORT = "router/static.safetensors", "router/report.json"
DELEGATES = ("xnnpack", "coreml")
ROUTERS = ("static", "minilm", "minilm-int8", "minilm-onnx", "minilm-onnx-int8")
# The neural embedder beside the static one, of the engines that run one; for the others ExecuTorch does, where the
# static one is not fit.
ENGINE_ROUTERS = {"executorch": "minilm", "onnx": "minilm-onnx"}
FALLBACK_ROUTER = "minilm"
# What a bundle gets where nobody asks for programs: the first that reads memory of the checkpoint's kind.
DEFAULT_PROGRAMS = (("native", "paged"), ("executorch", "portable"))
PROGRAMS = (
    ("executorch", "paged"),
    ("executorch", "portable"),
    ("native", "paged"),
    ("onnx", "portable"),
    ("coreml", "portable"),
    ("coreml", "stateful"),
)


def bank_dtypes(text: str) -> tuple[str, dict[int, str]]:
    """A bank's dtype, and those of levels that have another: `i8`, or `i8,0=f16,2=i4`. InvalidArgumentError."""
    default, *others = text.split(",")
    pairs = [other.partition("=") for other in others]
    levels = {int(level): dtype for level, _, dtype in pairs if level.isascii() and level.isdigit()}
    if len(levels) != len(pairs) or any(dtype not in BANK_DTYPES for dtype in (default, *levels.values())):
        raise InvalidArgumentError(
            f"--memory-dtype {text!r}: one of {', '.join(BANK_DTYPES)}, and behind it levels that have another, "
            "such as i8,2=i4"
        )
    return default, levels


@dataclass(frozen=True)
class ExportConfig:
    """memory_dtype: of the bank, as `bank_dtypes` reads it. max_prefill: tokens a call. embedder: a directory or
    Hugging Face id, None for the installed package. routers: of ROUTERS; None for the engines' own as far as the
    checkpoint has them. anchor_dtype: of the programs' weights, one of ANCHOR_DTYPES or NATIVE_DTYPES, None for those
    of DEFAULT_DTYPES. programs: (engine, flavour) pairs of PROGRAMS, the first is the bundle's default.
    context_length: tokens, at most; None for all that a checkpoint of ours has, and 4,096 of a Hugging Face model.
    delegate: of ExecuTorch's programs, one of DELEGATES; coreml has no paged one."""

    name: str
    memory_dtype: str
    max_prefill: int
    embedder: str | None
    routers: tuple[str, ...] | None = None
    anchor_dtype: str | None = None
    programs: tuple[tuple[str, str], ...] = DEFAULT_PROGRAMS[:1]
    context_length: int | None = None
    delegate: str = "xnnpack"

    @property
    def engines(self) -> list[str]:
        return list(dict.fromkeys(engine for engine, _ in self.programs))

    def bank_dtype(self, level: int) -> str:
        """Of a level of the bank. InvalidArgumentError as `bank_dtypes`."""
        default, levels = bank_dtypes(self.memory_dtype)
        return levels.get(level, default)

    def dtype_of(self, engine: str) -> str:
        """What that engine calls `anchor_dtype`. InvalidArgumentError where it has no such."""
        named = "coreml" if engine == "executorch" and self.delegate == "coreml" else engine
        asked, known = self.anchor_dtype or DEFAULT_DTYPES[named], DTYPES[named]
        dtype = _SAME[named].get(asked, asked)
        if dtype not in known:
            raise InvalidArgumentError(f"--anchor-dtype {dtype!r}: {engine} has {', '.join(known)}")
        return dtype

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Source:
    """A checkpoint directory of ours, or a Hugging Face folder; `memories` belong to the latter.

    A checkpoint of memories alone is opened as the folder that it names, with itself as the memories.
    """

    directory: Path
    memories: Path | None = None

    @classmethod
    def open(cls, directory: Path, memories: Path | None = None) -> Source:
        """
        Raises:
            NotFoundError: a file is missing.
            InvalidArgumentError: memories beside a checkpoint that has its own.
            UnsupportedError, BadFormatError: as `hf_config`.
        """
        if memories is None and (anchor := _anchor_folder(directory)) is not None:
            directory, memories = anchor, directory
        source = cls(directory, memories)
        if source.huggingface:
            hf_config(directory)
            files = [directory / name for name in HF_FILES]
            files += [memories / name for name in MEMORY_FILES] if memories else []
        elif memories is not None:
            raise InvalidArgumentError(
                f"--memory {memories}: {directory} is a checkpoint with memories of its own"
            )
        else:
            files = [directory / name for name in FILES]
        for file in files:
            if not file.is_file():
                raise NotFoundError(
                    f"{file}: no such file: a checkpoint has it; "
                    f"run `edge-runtime pretrain` to its end, or name its checkpoint directory"
                )
        return source

    @property
    def huggingface(self) -> bool:
        """Whether config.json is not one of ours."""
        try:
            config = json.loads(self.file("config.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return False
        return isinstance(config, dict) and "model_type" in config

    @property
    def has_memory(self) -> bool:
        return self.memories is not None or not self.huggingface

    @property
    def memory_kind(self) -> str:
        """What config.json says; FFN memory where it says nothing, which reading the memories then finds."""
        try:
            found = json.loads(self.memory_file("config.json").read_text(encoding="utf-8"))["memory"]["kind"]
        except (OSError, ValueError, KeyError, TypeError):
            return "ffn"
        return found if isinstance(found, str) else "ffn"

    def default_program(self, flavours: tuple[str, ...] = ()) -> tuple[str, str]:
        """What to write where no engine is asked for: it reads the memory's kind, and has one of `flavours` if any.

        Raises InvalidArgumentError for a flavour of other engines.
        """
        asked = [one for one in DEFAULT_PROGRAMS if not flavours or one[1] in flavours]
        if not asked:
            raise InvalidArgumentError(
                f"--flavour {','.join(flavours)}: name an engine that has it with --to"
            )
        kind = self.memory_kind
        return next((one for one in asked if kind in MEMORY_KINDS["/".join(one)]), asked[0])

    def file(self, name: str) -> Path:
        return self.directory / name

    def memory_file(self, name: str) -> Path:
        """A file of the folder that the memories are in."""
        return (self.memories or self.directory) / name

    def fingerprint(self, config: ExportConfig) -> str:
        """SHA-256 over the sources' files and the export's configuration."""
        digest = hashlib.sha256(json.dumps(config.to_json(), sort_keys=True).encode())
        optional = (ROUTER_TABLES, ROUTER_REPORT)
        if self.huggingface:
            files = sorted([*self.directory.glob("*.json"), *self.directory.glob("*.safetensors")])
            files += [self.file("chat_template.jinja")]
            files += [self.memory_file(name) for name in (*MEMORY_FILES, *optional)] if self.memories else []
        else:
            files = [self.file(name) for name in (*FILES, *optional)]
        for path in files:
            if path.is_file():
                with path.open("rb") as file:
                    digest.update(hashlib.file_digest(file, "sha256").digest())
        return digest.hexdigest()

    def is_exported(self, out: Path, config: ExportConfig) -> bool:
        """Whether `out` is a whole bundle made from these files with this configuration."""
        try:
            return Bundle.open(out).manifest.provenance.get("fingerprint") == self.fingerprint(config)
        except EdgeRuntimeError:
            return False


def _anchor_folder(checkpoint: Path) -> Path | None:
    """The Hugging Face folder that a checkpoint of memories alone was trained with. Raises NotFoundError."""
    try:
        anchor = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))["anchor"]
        folder = Path(anchor["path"]) if anchor["architecture"] == "huggingface" else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if folder is not None and not folder.is_dir():
        raise NotFoundError(
            f"{checkpoint}: its anchor is no longer at {folder}: "
            f"where it is now, `edge-runtime export FOLDER --memory {checkpoint}`"
        )
    return folder
