"""What the torch reference says, for the tests of engines."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from edge_pretrain.checkpoint import Checkpoint
from edge_pretrain.model import MemoryRows
from edge_runtime.pager import Node

Logits = npt.NDArray[np.float32]
PATHS: dict[str, list[Node]] = {
    "none": [],
    "level 1": [(1, 2)],
    "level 2": [(2, 9)],
    "all levels": [(1, 2), (2, 9)],
    "generic": [(0, 0)],
}


def expected(checkpoint: Checkpoint, tokens: npt.NDArray[np.int64], nodes: list[Node]) -> Logits:
    """Logits f32 [T, vocab_size]."""
    memory = None
    if nodes:
        rows = torch.cat([checkpoint.memories.levels[level][node] for level, node in nodes], dim=2)
        config = checkpoint.memories.config
        memory = MemoryRows(rows[None], config.layers, config.type)
    with torch.inference_mode():
        logits: Logits = checkpoint.anchor(torch.from_numpy(tokens)[None], memory)[0].numpy()
    return logits
