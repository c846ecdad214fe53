"""Memories on a frozen anchor: every level-1 subtree of the bank can be trained by a job of its own.

Pouransari et al. 2025, section 3. Where the anchor does not move, blocks of different subtrees never meet: each
subtree draws its own batches, and gradients are clipped a block at a time. So one job for all subtrees and a job
for each, merged (`edge_pretrain.subtrees`), end with the same bits. The generic memory, which all texts share,
is one more unit; its turn is one in fanout + 1, as in co-training.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from edge_pretrain.accumulation import add_gradients, pieces_of
from edge_pretrain.compute import CPU, Compute
from edge_pretrain.memories import MemoryBank, MemoryConfig, SparseAdamW, Touched
from edge_pretrain.model import MemoryReader
from edge_pretrain.next_token import next_token_loss, targets_of
from edge_pretrain.sequences import Sequences
from edge_pretrain.train import BETAS, CLIP, Schedule, batch_of, order_of


@dataclass(frozen=True)
class FrozenConfig:
    """`batch`: sequences a step of each unit."""

    steps: int
    batch: int
    warmup: int
    memory: Schedule
    weight_decay: float


def unit_nodes(config: MemoryConfig, unit: int) -> dict[int, slice]:
    """The blocks of a unit, by level: a level-1 subtree, or the generic memory for unit `fanout`."""
    if unit == config.fanout:
        return {0: slice(0, 1)}
    sizes = {level: config.fanout ** (level - 1) for level, _ in config.levels if level}
    return {level: slice(unit * size, (unit + 1) * size) for level, size in sizes.items()}


def clip_blocks(touched: Sequence[Touched]) -> float:
    """Clip each block's gradient to norm 1, in place; returns the norm of all before that."""
    total = 0.0
    for part in touched:
        norms = part.gradient.flatten(1).norm(dim=1)
        total += float(norms.square().sum())
        part.gradient.mul_((CLIP / norms.clamp(min=CLIP)).view(-1, 1, 1, 1, 1))
    return math.sqrt(total)


class FrozenTrainer:
    """Trains the blocks of some units; the others, and the anchor, stay as they are."""

    def __init__(
        self,
        anchor: MemoryReader,
        phase: FrozenConfig,
        sequences: Sequences,
        seed: int,
        bank: MemoryBank,
        units: Sequence[int],
        compute: Compute = CPU,
    ) -> None:
        self.anchor, self.phase, self.sequences, self.seed, self.bank = anchor, phase, sequences, seed, bank
        self.units, self.compute = tuple(units), compute
        self.step = 0
        self.sparse = SparseAdamW(bank, BETAS, weight_decay=phase.weight_decay)
        anchor.requires_grad_(False).to(compute.device)
        self._loss = partial(next_token_loss, anchor)
        top = sequences.leaves // bank.config.fanout ** (bank.config.depth - 1)
        # A subtree without documents has nothing to learn.
        found = {u: np.flatnonzero((top == u) | (u == bank.config.fanout)) for u in self.units}
        self._members = {unit: members for unit, members in found.items() if len(members)}

    @property
    def finished(self) -> bool:
        return self.step >= self.phase.steps

    @property
    def tokens_per_step(self) -> int:
        return len(self._members) * self.phase.batch * self.sequences.length

    @property
    def learning_rate(self) -> float:
        """The rate of the last step."""
        return self.phase.memory.at(max(0, self.step - 1), self.phase.steps, self.phase.warmup)

    def train_step(self) -> tuple[float, float]:
        """One batch of every unit; returns the mean of their losses and the norm of all gradients."""
        rate = self.phase.memory.at(self.step, self.phase.steps, self.phase.warmup)
        losses, norms = [], []
        for unit, members in self._members.items():
            indices = members[order_of(len(members), self.phase.batch, self.step, [self.seed, 2, unit])]
            leaves = torch.from_numpy(self.sequences.leaves[indices])
            generic = torch.full((len(indices),), unit == self.bank.config.fanout)
            memory = self.bank.fetch(leaves, generic)
            memory.rows.requires_grad_()
            tokens, documents = batch_of(self.sequences, indices, self.compute.device)
            counted = int((targets_of(tokens, documents) >= 0).sum())
            pieces = pieces_of(len(indices), 1, self.compute.microbatch)
            loss = add_gradients(self._loss, tokens, documents, memory, self.compute, pieces, counted)
            touched = self.bank.touched(cast(Tensor, memory.rows.grad), leaves, generic)
            norms.append(clip_blocks(touched))
            self.sparse.step(touched, rate)
            losses.append(loss)
        self.step += 1
        return float(np.mean(losses or [0.0])), float(np.linalg.norm(norms))

    def _tables(self) -> dict[str, dict[int, torch.Tensor]]:
        return {"memories": self.bank.levels, **self.sparse.state_dict()}

    def state_dict(self) -> dict[str, Any]:
        """The blocks of the units and their moments, a unit at a time: states of different units are joined by key."""
        tables = {
            f"{name}.{unit}.{level}": table[level][nodes].clone()
            for unit in self.units
            for level, nodes in unit_nodes(self.bank.config, unit).items()
            for name, table in self._tables().items()
        }
        return {"step": self.step, "units": list(self.units), "tables": tables}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.step = state["step"]
        tables = self._tables()
        for key, values in state["tables"].items():
            name, unit, level = key.split(".")
            tables[name][int(level)][unit_nodes(self.bank.config, int(unit))[int(level)]] = values
