"""What the torch reference says of a few tokens: kept in the bundle, so that programs can be compared without torch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from edge_export.inputs import Inputs, Memories
from edge_pretrain.model import MemoryRows

PATH = "reference.safetensors"
TOKENS, STEPS = 48, 16
# Of the file: logits of large vocabularies are kept for fewer steps.
LARGEST = 8 << 20


def write_reference(root: Path, inputs: Inputs) -> str:
    """Writes the file (docs/bundle-format.md) and returns its path. Memories are those of the checkpoint, in f32."""
    config = inputs.decoder.config
    choices = {"none": list[tuple[int, int]]()}
    if inputs.memories is not None:
        choices |= {"generic": [(0, 0)], "path": _path(inputs.memories)}
    count = min(TOKENS, config.context_length)
    steps = max(1, min(STEPS, count, LARGEST // (4 * config.vocab_size * len(choices))))
    tokens = torch.from_numpy(np.random.default_rng(0).integers(0, config.vocab_size, count))
    tensors = {"tokens": tokens}
    for name, nodes in choices.items():
        with torch.inference_mode():
            logits = inputs.decoder(tokens[None], _rows(inputs.memories, nodes))
        tensors[f"logits.{name}"] = logits[0, -steps:].clone()
        tensors[f"nodes.{name}"] = torch.tensor(nodes, dtype=torch.long).reshape(-1, 2)
    save_file(tensors, root / PATH)
    return PATH


def _path(memories: Memories) -> list[tuple[int, int]]:
    """The nodes from the root to the first leaf that has documents, as far as they have blocks."""
    config = memories.config
    leaf = int(memories.documents(config.depth).nonzero()[0][0])
    path = [(level, leaf // config.fanout ** (config.depth - level)) for level, _ in config.levels if level]
    return [(level, node) for level, node in path if node in memories.kept(level)]


def _rows(memories: Memories | None, nodes: list[tuple[int, int]]) -> MemoryRows | None:
    if memories is None or not nodes:
        return None
    with safe_open(memories.path, framework="pt") as file:
        blocks = [file.get_slice(f"level{level}")[node : node + 1] for level, node in nodes]
    return MemoryRows(torch.cat(blocks, dim=3), memories.config.layers, memories.config.type)
