"""One training phase, step by step: the anchor alone, or the anchor together with its memories.

Pouransari et al. 2025, section 3: AdamW (0.9, 0.95), clip 1.0, warm-up and cosine; the memories have their
own learning rate. Everything random depends on (seed, step) only, so a phase that is stopped and resumed on
the same CPU and thread count ends with the same bits.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edge_pretrain.accumulation import add_gradients, pieces_of
from edge_pretrain.compute import CPU, Compute
from edge_pretrain.memories import MemoryBank, SparseAdamW, generic_choice
from edge_pretrain.model import Anchor
from edge_pretrain.next_token import NextTokenLoss, targets_of
from edge_pretrain.ranks import Ranks
from edge_pretrain.sequences import Sequences
from edge_pretrain.sharding import distributed, load_anchor, load_optimizer, norm_of, replica, whole

BETAS = (0.9, 0.95)
CLIP = 1.0


@dataclass(frozen=True)
class Schedule:
    """Linear warm-up to `peak`, then cosine to `final` at the last step."""

    peak: float
    final: float

    def at(self, step: int, steps: int, warmup: int) -> float:
        """The learning rate of step 0 <= step < steps."""
        if step < warmup:
            return self.peak * (step + 1) / warmup
        progress = (step - warmup) / max(1, steps - 1 - warmup)
        return self.final + (self.peak - self.final) * (1 + math.cos(math.pi * progress)) / 2


@dataclass(frozen=True)
class PhaseConfig:
    """`batch`: sequences a step. `memory`: the memories' learning rate, None for a phase without them."""

    steps: int
    batch: int
    warmup: int
    anchor: Schedule
    weight_decay: float
    memory: Schedule | None = None
    memory_weight_decay: float = 0.0


def batch_of(sequences: Sequences, indices: NDArray[np.int64], device: str = "cpu") -> tuple[Tensor, Tensor]:
    """Tokens and documents of sequences, i64 [B, T] each."""
    tokens, documents = (
        torch.from_numpy(rows.astype(np.int64)).to(device) for rows in sequences.batch(indices)
    )
    return tokens, documents


def order_of(members: int, batch: int, step: int, seed: list[int]) -> NDArray[np.int64]:
    """What a step reads of `members` sequences: each epoch is a permutation of its own, steps run across epochs."""
    positions = np.arange(step * batch, (step + 1) * batch)
    epochs, offsets = np.divmod(positions, members)
    indices = np.empty_like(positions)
    for epoch in np.unique(epochs):
        head, *tail = seed
        order = np.random.default_rng([head, int(epoch), *tail]).permutation(members)
        indices[epochs == epoch] = order[offsets[epochs == epoch]]
    return indices


class Trainer:
    """The state of one phase. `bank` must be given exactly when the phase trains memories.

    Under torchrun each process trains on its share of every batch (`edge_pretrain.sharding`); `bank` is a `ShardedBank`
    then, and `state_dict` is that of one process. `collect` must follow the last step.
    """

    def __init__(
        self,
        anchor: Anchor,
        phase: PhaseConfig,
        sequences: Sequences,
        seed: int,
        bank: MemoryBank | None = None,
        compute: Compute = CPU,
    ) -> None:
        if (bank is None) != (phase.memory is None):
            raise ValueError("train: a phase with a memory learning rate needs a bank, and only such a phase")
        self.phase, self.sequences, self.seed, self.bank = phase, sequences, seed, bank
        self.compute, self.step = compute, 0
        self.ranks = Ranks()
        self._given, anchor = anchor, replica(anchor, compute.device, compute.sharding)
        self.anchor = anchor
        self.loss = distributed(NextTokenLoss(anchor), anchor, compute.sharding)
        # Decay shrinks matrices only: gains have no scale to control.
        matrices = [p for p in anchor.parameters() if p.ndim > 1]
        gains = [p for p in anchor.parameters() if p.ndim == 1]
        groups: list[dict[str, Any]] = [{"params": matrices}, {"params": gains, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(
            groups, lr=phase.anchor.peak, betas=BETAS, weight_decay=phase.weight_decay, fused=True
        )
        self.sparse = (
            None if bank is None else SparseAdamW(bank, BETAS, weight_decay=phase.memory_weight_decay)
        )

    @property
    def finished(self) -> bool:
        return self.step >= self.phase.steps

    def batch_indices(self, step: int) -> NDArray[np.int64]:
        return order_of(len(self.sequences), self.phase.batch, step, [self.seed, 1])

    @property
    def tokens_per_step(self) -> int:
        return self.phase.batch * self.sequences.length

    @property
    def learning_rate(self) -> float:
        """The rate of the last step."""
        return float(self.optimizer.param_groups[0]["lr"])

    def train_step(self) -> tuple[float, float]:
        """Do one step; returns its loss (nats a token) and the norm of its gradient before clipping."""
        phase, step = self.phase, self.step
        indices = self.batch_indices(step)
        device = self.compute.device
        tokens, documents = batch_of(self.sequences, self.ranks.own(indices), device)
        memory = None
        if self.bank is not None:
            leaves = torch.from_numpy(self.sequences.leaves[indices])
            generic = torch.from_numpy(generic_choice(self.bank.config, len(indices), self.seed, step))
            memory = self.bank.fetch(leaves, generic)
            memory.rows.requires_grad_()

        self.optimizer.zero_grad()
        world = self.ranks.world
        counted = self.ranks.sum(int((targets_of(tokens, documents) >= 0).sum()))
        pieces = pieces_of(len(indices), world, self.compute.microbatch)
        loss = add_gradients(self.loss, tokens, documents, memory, self.compute, pieces, counted, world)

        touched = []
        if self.bank is not None and memory is not None and memory.rows.grad is not None:
            gradient = memory.rows.grad if world == 1 else memory.rows.grad / world
            touched = self.bank.touched(gradient, leaves, generic)
        gradients = [p.grad for p in self.anchor.parameters() if p.grad is not None]
        norm = self._norm(gradients, [t.gradient for t in touched])
        if norm > CLIP:
            torch._foreach_mul_(gradients, CLIP / norm)
            for block in touched:
                block.gradient.mul_(CLIP / norm)
        rate = phase.anchor.at(step, phase.steps, phase.warmup)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        if self.sparse is not None and phase.memory is not None:
            self.sparse.step(touched, phase.memory.at(step, phase.steps, phase.warmup))
        self.step += 1
        return self.ranks.sum(loss), norm

    def _norm(self, anchor: list[Tensor], memories: list[Tensor]) -> float:
        """Of the whole gradient: the anchor's is the same on every process, blocks have one owner each."""
        if self.ranks.world == 1 and self.compute.device == "cpu":
            return norm_of(anchor + memories)
        blocks = self.ranks.sum(sum(float(g.square().sum()) for g in memories))
        return math.sqrt(norm_of(anchor) ** 2 + blocks)

    def state_dict(self) -> dict[str, Any]:
        """All that the next step depends on."""
        state = {
            "step": self.step,
            "anchor": whole(self.anchor.state_dict()),
            "optimizer": whole(self.optimizer.state_dict()),
        }
        if self.bank is not None and self.sparse is not None:
            state |= {"memories": self.bank.whole(self.bank.levels), "sparse": self.sparse.state_dict()}
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.step = state["step"]
        load_anchor(self.anchor, state["anchor"])
        load_optimizer(self.optimizer, state["optimizer"])
        if self.bank is not None and self.sparse is not None:
            self.bank.levels = {level: self.bank.shard(t) for level, t in state["memories"].items()}
            self.sparse.load_state_dict(state["sparse"])

    def collect(self) -> None:
        """Bring what was trained into the anchor that was given, on the CPU; all processes do so together."""
        if self.anchor is not self._given:
            self._given.load_state_dict(whole(self.anchor.state_dict()))
        self._given.to("cpu")
