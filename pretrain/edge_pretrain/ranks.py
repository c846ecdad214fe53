"""The processes that train together (torchrun), and a memory bank whose blocks are divided among them.

A block belongs to rank `node % world`, with its moments: no process holds the whole bank. Every process knows the
leaves of the whole batch, which follow from (seed, step), so that blocks and gradients travel without asking.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor

from edge_pretrain.memories import MemoryBank, Touched
from edge_pretrain.model import MemoryRows

Result = TypeVar("Result")


class Ranks:
    """This process among all; one alone needs no process group. `local`: its number on this machine."""

    def __init__(self) -> None:
        alone = not dist.is_initialized()
        self.rank, self.world = (0, 1) if alone else (dist.get_rank(), dist.get_world_size())
        self.local = 0 if alone else int(os.environ.get("LOCAL_RANK", "0"))

    def own(self, items: NDArray[np.int64]) -> NDArray[np.int64]:
        """This process's share of a batch."""
        return items[self.rank :: self.world]

    def sum(self, value: float) -> float:
        """The sum over all processes."""
        if self.world == 1:
            return value
        total = torch.tensor(value, dtype=torch.float64)
        dist.all_reduce(total)
        return float(total)

    def first(self, work: Callable[[], Result]) -> Result:
        """Do cached work on rank 0, then on the others, which find it done."""
        if self.rank:
            dist.barrier()
        result = work()
        if self.world > 1 and self.rank == 0:
            dist.barrier()
        return result


@contextmanager
def process_group(device: str = "cpu") -> Iterator[Ranks]:
    """The group that torchrun started, if it did: gloo for what is in the host's memory, NCCL for a GPU's."""
    if "RANK" not in os.environ:
        yield Ranks()
        return
    dist.init_process_group("cpu:gloo,cuda:nccl" if device == "cuda" else "gloo")
    try:
        yield Ranks()
    finally:
        dist.destroy_process_group()


class ShardedBank(MemoryBank):
    """`levels[l]` holds this rank's blocks; `fetch` and `touched` take the leaves of the whole batch.

    All ranks call all methods, in the same order. `Touched.nodes` count within `levels`.
    """

    def __init__(self, bank: MemoryBank, ranks: Ranks) -> None:
        super().__init__(bank.config, {})
        self.ranks = ranks
        self.levels = {level: self.shard(block) for level, block in bank.levels.items()}

    def shard(self, table: Tensor) -> Tensor:
        """This rank's part of a table of all blocks of a level."""
        return table[self.ranks.rank :: self.ranks.world].clone()

    def gather(self, table: Tensor, nodes: int) -> Tensor:
        """The inverse of `shard`, on every rank."""
        world = self.ranks.world
        padded = table.new_zeros(-(-nodes // world), *table.shape[1:])
        padded[: len(table)] = table
        parts = [torch.empty_like(padded) for _ in range(world)]
        dist.all_gather(parts, padded)
        return torch.stack(parts, dim=1).flatten(0, 1)[:nodes]

    def fetch(self, leaves: Tensor, generic: Tensor) -> MemoryRows:
        rank, world = self.ranks.rank, self.ranks.world
        blocks = []
        for level, _ in self.config.levels:
            wanted = self._wanted(level, leaves, generic)
            sent = torch.cat([nodes[nodes % world == rank] for nodes in wanted]) // world
            own = wanted[rank]
            order = torch.cat([torch.nonzero(own % world == r).flatten() for r in range(world)])
            received = self._exchange(
                self.levels[level][sent],
                [int((nodes % world == rank).sum()) for nodes in wanted],
                [int((own % world == r).sum()) for r in range(world)],
            )
            block = torch.empty_like(received)
            block[order] = received
            blocks.append(block)
        mine, plain = leaves[rank::world], ~generic[rank::world]
        rows = blocks[0].new_zeros(
            len(mine), *blocks[0].shape[1:3], self.config.fetched_rows, blocks[0].shape[4]
        )
        start = 0
        for block, (level, count) in zip(blocks[1:], self.config.levels[1:], strict=True):
            slot = torch.searchsorted(
                self._wanted(level, leaves, generic)[rank], self.config.node(mine[plain], level)
            )
            rows[plain, :, :, start : start + count] = block[slot]
            start += count
        if not bool(plain.all()):
            rows[~plain] = blocks[0]
        return MemoryRows(rows, self.config.layers, self.config.type)

    def touched(self, gradient: Tensor, leaves: Tensor, generic: Tensor) -> list[Touched]:
        """This rank's blocks that any rank has read, their gradients summed over all ranks."""
        rank, world = self.ranks.rank, self.ranks.world
        local = {p.level: p for p in super().touched(gradient, leaves[rank::world], generic[rank::world])}
        found = []
        for level, _ in self.config.levels:
            wanted = self._wanted(level, leaves, generic)
            own = wanted[rank]
            order = torch.cat([torch.nonzero(own % world == r).flatten() for r in range(world)])
            empty = self.levels[level].new_empty(0, *self.levels[level].shape[1:])
            received = self._exchange(
                local[level].gradient[order] if level in local else empty,
                [int((own % world == r).sum()) for r in range(world)],
                [int((nodes % world == rank).sum()) for nodes in wanted],
            )
            nodes, slot = torch.unique(torch.cat([n[n % world == rank] for n in wanted]), return_inverse=True)
            total = received.new_zeros(len(nodes), *received.shape[1:]).index_add_(0, slot, received)
            if len(nodes):
                found.append(Touched(level, nodes // world, total))
        return found

    def _wanted(self, level: int, leaves: Tensor, generic: Tensor) -> list[Tensor]:
        """The nodes that each rank reads, ascending."""
        world, found = self.ranks.world, []
        for rank in range(world):
            skipped = generic[rank::world]
            if level == 0:
                found.append(torch.zeros(int(bool(skipped.any())), dtype=torch.long))
            else:
                found.append(torch.unique(self.config.node(leaves[rank::world][~skipped], level)))
        return found

    @staticmethod
    def _exchange(blocks: Tensor, sent: list[int], received: list[int]) -> Tensor:
        """all_to_all: `sent[r]` of the blocks go to rank r, `received[r]` come from it."""
        result = blocks.new_empty(sum(received), *blocks.shape[1:])
        dist.all_to_all_single(result, blocks.contiguous(), received, sent)
        return result
