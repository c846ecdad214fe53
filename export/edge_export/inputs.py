"""What a bundle is written from, loaded: one shape for our own checkpoints and for Hugging Face folders."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from tokenizers import Tokenizer

from edge_export.model import Decoder
from edge_export.openlm import from_anchor
from edge_export.source import Source
from edge_pretrain.checkpoint import CheckpointError, memory_config
from edge_pretrain.checkpoint import load as load_checkpoint
from edge_pretrain.embed import EMBEDDER_ID
from edge_pretrain.hf_folder import AnchorFolder, settings
from edge_pretrain.memories import MemoryConfig
from edge_pretrain.memory_types import TYPES
from edge_runtime.errors import BadFormatError, UnsupportedError
from edge_runtime.text import read_tokenizer


@dataclass(frozen=True)
class Memories:
    """A trained bank on disk; blocks are read one by one, since a bank may be larger than memory."""

    config: MemoryConfig
    path: Path
    tree: Path

    def documents(self, level: int) -> npt.NDArray[np.int32]:
        """Training documents of each node of a level >= 1 of the tree."""
        with safe_open(self.tree, framework="numpy") as file:
            found: npt.NDArray[np.int32] = file.get_tensor(f"documents.{level}")
        return found

    def kept(self, level: int) -> list[int]:
        """The nodes that get a block: not those of empty clusters."""
        return [0] if level == 0 else [int(node) for node in self.documents(level).nonzero()[0]]

    def blocks(self, level: int) -> Iterator[tuple[int, npt.NDArray[np.float32]]]:
        """(node, f32 [layers, parts, r, width]) of each that is kept."""
        with safe_open(self.path, framework="numpy") as file:
            rows = file.get_slice(f"level{level}")
            for node in self.kept(level):
                yield node, rows[node : node + 1][0]


@dataclass(frozen=True)
class Inputs:
    """settings: the manifest's `tokens`, `chat_template` and `generation`."""

    decoder: Decoder
    anchor: dict[str, Any]
    settings: dict[str, Any]
    tokenizer: Tokenizer
    memories: Memories | None
    provenance: dict[str, Any]

    @property
    def memory_layers(self) -> tuple[int, ...]:
        """The anchor's layers that carry memory."""
        return self.memories.config.layers if self.memories else ()

    @property
    def memory_kind(self) -> str:
        """Of `edge_pretrain.memory_types.TYPES`; FFN memory where there is none."""
        return self.memories.config.kind if self.memories else "ffn"

    @property
    def memory_shapes(self) -> list[tuple[int, ...]]:
        """Of a block of each level, [layers, parts, r, width]."""
        if self.memories is None:
            return []
        shapes = self.memories.config.shapes(self.decoder.config)
        return [shapes[level][1:] for level, _ in self.memories.config.levels]


SETTINGS = ("tokens", "chat_template", "generation")
# Tokens. Models of the hub declare up to 131,072, and the KV cache of every program is as long as its context.
HUGGINGFACE_CONTEXT = 4096


def load_inputs(source: Source, context_length: int | None = None) -> Inputs:
    """Reads the anchor; memories are only opened. context_length: as `ExportConfig`.

    Raises:
        BadFormatError, NotFoundError, UnsupportedError: a file is damaged, missing or of a kind that is not known.
    """
    if source.huggingface:
        return _huggingface(source, context_length or HUGGINGFACE_CONTEXT)
    try:
        checkpoint = load_checkpoint(source.directory, TYPES)
    except CheckpointError as error:
        raise BadFormatError(str(error)) from None
    _check_embedder(source, checkpoint.config)
    decoder, config = from_anchor(checkpoint.anchor, context_length), checkpoint.config
    return Inputs(
        decoder,
        config["anchor"] | {"context_length": decoder.config.context_length},
        {name: config[name] for name in SETTINGS},
        checkpoint.tokenizer,
        Memories(checkpoint.memories.config, source.file("memories.safetensors"), checkpoint.tree_path),
        config["provenance"],
    )


def _huggingface(source: Source, context_length: int) -> Inputs:
    from edge_export.huggingface import load_decoder

    decoder = load_decoder(source.directory, context_length)
    tokenizer, vocab_size = read_tokenizer(source.file("tokenizer.json")), decoder.config.vocab_size
    if tokenizer.get_vocab_size() > vocab_size:
        raise BadFormatError(
            f"{source.file('tokenizer.json')}: {tokenizer.get_vocab_size()} tokens do not fit the anchor's {vocab_size}"
        )
    memories = None if source.memories is None else _memories(source, decoder)
    kind = {"model_type": json.loads(source.file("config.json").read_text(encoding="utf-8"))["model_type"]}
    return Inputs(
        decoder, decoder.config.to_manifest(), settings(source.directory), tokenizer, memories, kind
    )


def _memories(source: Source, decoder: Decoder) -> Memories:
    """Those of another folder, which must fit the anchor."""
    path, file = source.memory_file("config.json"), source.memory_file("memories.safetensors")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        config = memory_config(found["memory"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadFormatError(f"{path}: it does not say what its memories are ({error!r})") from None
    _check_embedder(source, found)
    _check_anchor(source, found)
    if not all(0 <= layer < len(decoder.config.layers) for layer in config.layers):
        raise BadFormatError(f"{path}: memories in layers {list(config.layers)} of an anchor that has fewer")
    grouped = decoder.config.kv_heads != decoder.config.heads
    if grouped and config.kind in ("lora_qk", "lora_vo"):
        raise UnsupportedError(
            f"{path}: memory of kind {config.kind} adds to keys and values as wide as the queries, and this anchor's "
            f"heads share {decoder.config.kv_heads}: train ffn, lora_ffn or kv memories"
        )
    shapes = config.shapes(decoder.config)
    try:
        with safe_open(file, framework="numpy") as tensors:
            for level, _ in config.levels:
                shape = tuple(tensors.get_slice(f"level{level}").get_shape())
                wanted = shapes[level]
                if shape != wanted:
                    raise BadFormatError(
                        f"{file}: level{level} is {list(shape)}, the anchor needs {list(wanted)}: "
                        "take memories that were trained with this anchor"
                    )
    except (OSError, SafetensorError) as error:
        raise BadFormatError(f"{file}: damaged ({error}): copy it again") from None
    return Memories(config, file, source.memory_file("tree.safetensors"))


def _check_anchor(source: Source, config: dict[str, Any]) -> None:
    """Raises BadFormatError where the memories say which anchor they belong to, and it is another."""
    try:
        wanted = config["anchor"]["sha256"]
    except (KeyError, TypeError):
        return
    if wanted != AnchorFolder.open(source.directory).sha256():
        raise BadFormatError(
            f"{source.directory}: not the anchor that {source.memory_file('config.json')} was trained with: "
            "take memories that were trained with this anchor"
        )


def _check_embedder(source: Source, config: dict[str, Any]) -> None:
    try:
        embedder = config["embedder"]["id"]
    except (KeyError, TypeError):
        embedder = None
    if embedder != EMBEDDER_ID:
        raise BadFormatError(
            f"{source.memory_file('config.json')}: its tree was built with {embedder}; "
            f"this exporter has {EMBEDDER_ID}"
        )
