"""Perplexity of held-out texts, each routed by itself, for the ways of reading the bank."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from edge_pretrain.cluster import ClusterTree
from edge_pretrain.compute import Compute
from edge_pretrain.evaluate import Mode
from edge_pretrain.memories import MemoryBank
from edge_pretrain.model import MemoryReader
from edge_pretrain.next_token import next_token_loss

MODES: tuple[Mode, ...] = ("baseline", "generic", "fetched", "random")
BATCH = 8


@dataclass(frozen=True)
class HeldOut:
    """Token ids of texts with their markers, and the leaf that each is routed to, i64 [n]."""

    ids: list[list[int]]
    leaves: NDArray[np.int64]


@dataclass(frozen=True)
class Perplexity:
    """loss: nats a token, over all tokens."""

    loss: float
    texts: int
    tokens: int

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"perplexity": math.exp(self.loss)}


@torch.no_grad()
def perplexity(
    anchor: MemoryReader,
    bank: MemoryBank,
    tree: ClusterTree,
    held_out: HeldOut,
    mode: Mode,
    compute: Compute,
) -> Perplexity:
    """`random` reads the path of a leaf drawn from those that have documents."""
    leaves = held_out.leaves
    if mode == "random":
        leaves = np.random.default_rng(6).choice(np.flatnonzero(tree.documents[-1]), len(leaves))
    # Texts of like length share a batch, so that little is computed for the filling.
    order = np.argsort([len(ids) for ids in held_out.ids], kind="stable")
    total, count = 0.0, 0
    for start in range(0, len(order), BATCH):
        index = order[start : start + BATCH]
        tokens, documents = _filled([held_out.ids[i] for i in index], compute.device)
        memory = None
        if mode != "baseline":
            generic = torch.full((len(index),), mode == "generic")
            memory = bank.fetch(torch.from_numpy(leaves[index]), generic).to(compute.device)
        scored = int((documents[:, 1:] >= 0).sum())
        with compute.arithmetic(tokens.shape[1]):
            loss = next_token_loss(anchor, tokens, documents, memory)
        total, count = total + float(loss) * scored, count + scored
    return Perplexity(total / count, len(order), count)


def _filled(ids: Sequence[list[int]], device: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens, and documents: 0 where there are tokens, -1 behind them."""
    length = max(len(row) for row in ids)
    tokens = torch.zeros(len(ids), length, dtype=torch.long)
    documents = torch.full_like(tokens, -1)
    for i, row in enumerate(ids):
        tokens[i, : len(row)] = torch.tensor(row)
        documents[i, : len(row)] = 0
    return tokens.to(device), documents.to(device)
