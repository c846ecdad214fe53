"""The memory bank in training: its levels, which blocks a batch reads, and Adam on the touched blocks.

Pouransari et al. 2025, section 2 and appendix I. A leaf's path names one block a level; a sequence reads the
rows of all of them side by side. The generic memory (level 0) has the fetched size and is read instead of the
path's blocks with probability 1 / (fanout + 1).
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edge_pretrain.memory_types import TYPES, Dimensions, MemoryType
from edge_pretrain.model import MemoryRows


@dataclass(frozen=True)
class MemoryConfig:
    """rows[l - 1] is r of level l, 0: no memory there. `layers`: the anchor's layers that read it.

    kind: a name in `edge_pretrain.memory_types.TYPES`.
    """

    fanout: int
    rows: tuple[int, ...]
    layers: tuple[int, ...]
    kind: str = "ffn"

    @property
    def type(self) -> MemoryType:
        return TYPES[self.kind]

    @property
    def depth(self) -> int:
        return len(self.rows)

    @property
    def fetched_rows(self) -> int:
        """Rows of one path, also those of the generic memory."""
        return sum(self.rows)

    @property
    def generic_probability(self) -> float:
        return 1 / (self.fanout + 1)

    @property
    def levels(self) -> tuple[tuple[int, int], ...]:
        """(level, rows) of the generic memory and of every level that has memory."""
        return (
            (0, self.fetched_rows),
            *((level, rows) for level, rows in enumerate(self.rows, start=1) if rows),
        )

    def shapes(self, anchor: Dimensions) -> dict[int, tuple[int, ...]]:
        """The shape of every level of a bank."""
        return {
            level: (self.fanout**level, len(self.layers), *self.type.shape(anchor, rows))
            for level, rows in self.levels
        }

    def fetched_parameters(self, anchor: Dimensions) -> int:
        """Values that one path reads."""
        return math.prod(self.shapes(anchor)[0])

    def node(self, leaf: Tensor, level: int) -> Tensor:
        """The ancestors at `level` of leaves (nodes of the deepest level)."""
        return torch.div(leaf, self.fanout ** (self.depth - level), rounding_mode="floor")

    def to_checkpoint(self) -> dict[str, object]:
        """The checkpoint's `memory` object."""
        return {
            "kind": self.kind,
            "fanout": self.fanout,
            "depth": self.depth,
            "layers": list(self.layers),
            "levels": [{"level": level, "rows": rows} for level, rows in self.levels],
        }


@dataclass(frozen=True)
class Touched:
    """Blocks that a batch has read: nodes i64 [n], all different, their gradients [n, layers, parts, r, width]."""

    level: int
    nodes: Tensor
    gradient: Tensor


class MemoryBank:
    """All memory blocks: `levels[l]` is f32 [fanout^l, layers, parts, r, width], [.., 3, r, d] of FFN memory."""

    def __init__(self, config: MemoryConfig, levels: dict[int, Tensor]) -> None:
        self.config = config
        self.levels = levels

    @classmethod
    def initialized(
        cls, config: MemoryConfig, anchor: Dimensions, generator: torch.Generator
    ) -> "MemoryBank":
        """Blocks of an anchor of these dimensions, without effect at the start."""
        levels = {}
        for level, shape in config.shapes(anchor).items():
            levels[level] = torch.zeros(shape)
            config.type.initialize(levels[level], anchor, generator)
        return cls(config, levels)

    def shard(self, table: Tensor) -> Tensor:
        """What this bank holds of a table of all blocks of a level: all; see `edge_pretrain.ranks`."""
        return table

    def gather(self, table: Tensor, nodes: int) -> Tensor:
        """The inverse of `shard`; nodes: how many blocks the level has."""
        return table

    def whole(self, tables: dict[int, Tensor]) -> dict[int, Tensor]:
        """The tables of all levels, gathered."""
        return {level: self.gather(table, self.config.fanout**level) for level, table in tables.items()}

    def fetch(self, leaves: Tensor, generic: Tensor) -> MemoryRows:
        """The rows that a batch reads, a copy.

        leaves: i64 [B], nodes of the deepest level. generic: bool [B], True where the generic memory is read
        instead of the path's blocks. The result's `rows` is f32 [B, layers, parts, fetched_rows, width].
        """
        blocks = [
            self.levels[level][self.config.node(leaves, level)] for level, _ in self.config.levels if level
        ]
        rows = torch.cat(blocks, dim=3)
        rows[generic] = self.levels[0]
        return MemoryRows(rows, self.config.layers, self.config.type)

    def touched(self, gradient: Tensor, leaves: Tensor, generic: Tensor) -> list[Touched]:
        """Sort the gradient of `fetch`'s rows by block, summed over the sequences that read the same one."""
        found = []
        if bool(generic.any()):
            total = gradient[generic].sum(dim=0, keepdim=True)
            found.append(Touched(0, torch.zeros(1, dtype=torch.long), total))
        if bool(generic.all()):
            return found
        gradient, leaves, start = gradient[~generic], leaves[~generic], 0
        for level, rows in self.config.levels[1:]:
            nodes, slot = torch.unique(self.config.node(leaves, level), return_inverse=True)
            part = gradient[:, :, :, start : start + rows]
            total = part.new_zeros(len(nodes), *part.shape[1:]).index_add_(0, slot, part)
            found.append(Touched(level, nodes, total))
            start += rows
        return found


class SparseAdamW:
    """AdamW that updates only the blocks a batch has read, each with its own step counter.

    A block that is not read keeps its value and its moments: otherwise momentum and weight decay would go
    on moving a rare leaf's block for thousands of steps after its last gradient.
    """

    def __init__(
        self,
        bank: MemoryBank,
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        self.bank, self.betas, self.eps, self.weight_decay = bank, betas, eps, weight_decay
        self.mean = {level: torch.zeros_like(block) for level, block in bank.levels.items()}
        self.square = {level: torch.zeros_like(block) for level, block in bank.levels.items()}
        self.steps = {level: torch.zeros(len(block)) for level, block in bank.levels.items()}

    @torch.no_grad()
    def step(self, touched: list[Touched], learning_rate: float) -> None:
        beta1, beta2 = self.betas
        for part in touched:
            nodes, shape = part.nodes, (-1, 1, 1, 1, 1)
            mean = self.mean[part.level][nodes].lerp_(part.gradient, 1 - beta1)
            square = self.square[part.level][nodes].mul_(beta2)
            square.addcmul_(part.gradient, part.gradient, value=1 - beta2)
            steps = self.steps[part.level][nodes] + 1
            block = self.bank.levels[part.level][nodes]
            if self.weight_decay:
                block.mul_(1 - learning_rate * self.weight_decay)
            scale = (learning_rate / (1 - beta1**steps)).view(shape)
            denominator = square.sqrt().div_((1 - beta2**steps).sqrt().view(shape)).add_(self.eps)
            block.sub_(mean.mul(scale).div_(denominator))
            self.mean[part.level][nodes] = mean
            self.square[part.level][nodes] = square
            self.steps[part.level][nodes] = steps
            self.bank.levels[part.level][nodes] = block

    def state_dict(self) -> dict[str, dict[int, Tensor]]:
        tables = {"mean": self.mean, "square": self.square, "steps": self.steps}
        return {name: self.bank.whole(table) for name, table in tables.items()}

    def load_state_dict(self, state: dict[str, dict[int, Tensor]]) -> None:
        self.mean, self.square, self.steps = (
            {level: self.bank.shard(table) for level, table in state[name].items()}
            for name in ("mean", "square", "steps")
        )


def generic_choice(config: MemoryConfig, sequences: int, seed: int, step: int) -> NDArray[np.bool_]:
    """Which sequences of a step read the generic memory, bool [sequences].

    It depends on the seed and the step's number only, so that a resumed training makes the same choices.
    """
    return np.random.default_rng([seed, step, 17]).random(sequences) < config.generic_probability
