"""The checkpoint directory: what pretraining hands to the exporter.

config.json            dimensions, tokens, memory layout, embedder, provenance
anchor.safetensors     f32, named as the modules of `edge_pretrain.model.Anchor`
memories.safetensors   f32, `level<l>` [nodes, layers, parts, r, width]; level 0 is the generic memory
tree.safetensors       docs/bundle-format.md
tokenizer.json         Hugging Face format
questions.jsonl        held-out questions with their answers

Memories of a Hugging Face anchor come without anchor.safetensors and questions.jsonl;
config.json says where the anchor is.
"""

import json
import os
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import Tensor

from edge_pretrain.layout import FILES, FORMAT, VERSION
from edge_pretrain.memories import MemoryBank, MemoryConfig
from edge_pretrain.memory_types import TYPES
from edge_pretrain.model import Anchor, AnchorConfig


class CheckpointError(ValueError):
    """A checkpoint that cannot be used; the message names the file, what is wrong and what to do."""


@dataclass(frozen=True)
class Checkpoint:
    """A loaded checkpoint. `config` is config.json as it was read."""

    config: dict[str, Any]
    anchor: Anchor
    memories: MemoryBank
    tokenizer: Tokenizer
    tree_path: Path
    questions_path: Path


def save(
    directory: Path,
    anchor: Anchor,
    memories: MemoryBank,
    *,
    tree: Path,
    tokenizer: Path,
    questions: Path,
    settings: dict[str, Any],
) -> None:
    """Write a checkpoint; config.json comes last, so a directory that was cut short is refused by `load`.

    tree, tokenizer, questions: files to copy. settings: the keys `tokens`, `chat_template`, `generation`,
    `embedder` and `provenance` of config.json.
    """
    with _written(directory, anchor.config.to_manifest(), memories, settings):
        state = {name: tensor.contiguous() for name, tensor in anchor.state_dict().items()}
        save_file(state, directory / "anchor.safetensors")
        _copy(directory, tree, tokenizer)
        shutil.copyfile(questions, directory / "questions.jsonl")


def save_posthoc(
    directory: Path,
    anchor: dict[str, Any],
    memories: MemoryBank,
    *,
    tree: Path,
    tokenizer: Path,
    settings: dict[str, Any],
) -> None:
    """Write a checkpoint whose anchor stays in its Hugging Face folder; arguments as `save`.

    anchor: says which folder that is, `edge_pretrain.posthoc.anchor.AnchorFolder.to_checkpoint`.
    """
    with _written(directory, anchor, memories, settings):
        _copy(directory, tree, tokenizer)


def _copy(directory: Path, tree: Path, tokenizer: Path) -> None:
    for source, name in ((tree, "tree.safetensors"), (tokenizer, "tokenizer.json")):
        shutil.copyfile(source, directory / name)


@contextmanager
def _written(
    directory: Path, anchor: dict[str, Any], memories: MemoryBank, settings: dict[str, Any]
) -> Iterator[None]:
    """Around the writing of all other files: config.json goes first, and comes back last."""
    directory.mkdir(parents=True, exist_ok=True)
    config_path = directory / "config.json"
    config_path.unlink(missing_ok=True)
    levels = {f"level{level}": block.contiguous() for level, block in memories.levels.items()}
    save_file(levels, directory / "memories.safetensors")
    yield
    config = {
        "format": FORMAT,
        "version": VERSION,
        "anchor": anchor,
        "memory": memories.config.to_checkpoint(),
        **settings,
    }
    temporary = config_path.with_suffix(".tmp")
    with temporary.open("w") as file:
        json.dump(config, file, indent=2)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(config_path)


def load(directory: Path, kinds: Collection[str] = ("ffn",)) -> Checkpoint:
    """Read a checkpoint. Raises CheckpointError, one line, for a directory that is none or is damaged.

    kinds: the memory types that the caller can use; others are refused. FFN memory is what bundles carry.
    """
    config_path = directory / "config.json"
    config = _read_config(config_path) if config_path.is_file() else {}
    if isinstance(found := config.get("anchor"), dict) and found.get("architecture") == "huggingface":
        raise CheckpointError(
            f"{config_path}: memories of a Hugging Face anchor; `edge-runtime export` takes them, nothing else does"
        )
    for name in FILES:
        if not (directory / name).is_file():
            raise CheckpointError(f"{directory}: {name} is missing; run `edge-runtime pretrain` to its end")
    try:
        anchor_config = AnchorConfig.from_manifest(config["anchor"])
        memories_config = memory_config(config["memory"])
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{directory / 'config.json'}: bad or missing key: {error}") from error

    with torch.device("meta"):
        anchor = Anchor(anchor_config)
    shapes = {name: tuple(tensor.shape) for name, tensor in anchor.state_dict().items()}
    anchor.load_state_dict(_read_tensors(directory / "anchor.safetensors", shapes), assign=True)
    anchor.eval()

    if memories_config.kind not in kinds:
        raise CheckpointError(
            f"{directory / 'config.json'}: memory of kind {memories_config.kind} does not fit here; train one of "
            f"kind {' or '.join(sorted(kinds))}"
        )
    shapes = {f"level{level}": shape for level, shape in memories_config.shapes(anchor_config).items()}
    blocks = _read_tensors(directory / "memories.safetensors", shapes)
    levels = {level: blocks[f"level{level}"] for level, _ in memories_config.levels}

    path = directory / "tokenizer.json"
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises plain Exception
        raise CheckpointError(f"{path}: not a tokenizer: {error}") from error
    if tokenizer.get_vocab_size() > anchor_config.vocab_size:
        raise CheckpointError(
            f"{path}: {tokenizer.get_vocab_size()} tokens do not fit the anchor's {anchor_config.vocab_size}"
        )
    return Checkpoint(
        config,
        anchor,
        MemoryBank(memories_config, levels),
        tokenizer,
        directory / "tree.safetensors",
        directory / "questions.jsonl",
    )


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text())
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{path}: not readable as JSON: {error}") from error
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        raise CheckpointError(f"{path}: not an {FORMAT} file")
    if config.get("version") != VERSION:
        raise CheckpointError(
            f"{path}: version {config.get('version')} is not known; this is version {VERSION}"
        )
    return config


def memory_config(memory: dict[str, Any]) -> MemoryConfig:
    """The inverse of `MemoryConfig.to_checkpoint`. Raises KeyError, TypeError or ValueError."""
    rows = {int(level["level"]): int(level["rows"]) for level in memory["levels"]}
    config = MemoryConfig(
        int(memory["fanout"]),
        tuple(rows.get(level, 0) for level in range(1, int(memory["depth"]) + 1)),
        tuple(int(layer) for layer in memory["layers"]),
        memory["kind"],
    )
    if config.kind not in TYPES or rows.get(0) != config.fetched_rows:
        raise ValueError(
            f"memory must be of kind {', '.join(TYPES)}, with a generic level of the fetched rows"
        )
    return config


def _read_tensors(path: Path, shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: damaged: {error}") from error
    if tensors.keys() != shapes.keys():
        odd = min(tensors.keys() ^ shapes.keys())
        raise CheckpointError(f"{path}: tensor {odd} is {'not expected' if odd in tensors else 'missing'}")
    for name, shape in shapes.items():
        if tuple(tensors[name].shape) != shape or tensors[name].dtype != torch.float32:
            found = f"{tensors[name].dtype} {list(tensors[name].shape)}"
            raise CheckpointError(f"{path}: {name} is {found}, config.json asks for float32 {list(shape)}")
    return tensors
