"""The gradients of a batch, computed a piece after another where all of it at once takes too much memory."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from itertools import pairwise

import torch
from torch import Tensor, nn

from edge_pretrain.compute import Compute
from edge_pretrain.model import MemoryRows
from edge_pretrain.next_token import targets_of
from edge_pretrain.sharding import local_gradients

Loss = Callable[[Tensor, Tensor, MemoryRows | None], Tensor]


def pieces_of(sequences: int, world: int, microbatch: int) -> int:
    """In how many pieces each process computes its share: as many on all of them, and none is empty.

    sequences: of the whole batch. microbatch: sequences at once; a piece has one more where shares are uneven and a
    sequence is all that a process would be left with. 0: all at once.
    """
    if microbatch == 0:
        return 1
    largest, smallest = -(-sequences // world), sequences // world
    return max(1, min(-(-largest // microbatch), smallest))


def add_gradients(
    loss: Loss,
    tokens: Tensor,
    documents: Tensor,
    memory: MemoryRows | None,
    compute: Compute,
    pieces: int,
    counted: float,
    world: int = 1,
) -> float:
    """Adds to all gradients what a process's share of a batch gives; returns its part of the batch's mean loss.

    loss: of tokens and documents, i64 [B, T], and the memory of the B sequences: the mean over their next tokens,
    nats. counted: next tokens of the whole batch, each of which counts alike, wherever it is. world: processes, over
    which DistributedDataParallel and FSDP2 take the mean.
    """
    total = 0.0
    bounds = [len(tokens) * i // pieces for i in range(pieces + 1)]
    for first, end in pairwise(bounds):
        piece = tokens[first:end], documents[first:end]
        rows = None if memory is None else replace(memory, rows=memory.rows[first:end]).to(compute.device)
        part = int((targets_of(*piece) >= 0).sum()) / counted
        # Only the last piece's gradients, which are the sum of all, go to the other processes.
        with local_gradients(loss) if end < len(tokens) and isinstance(loss, nn.Module) else nullcontext():
            with compute.arithmetic(tokens.shape[1]):
                mean = loss(*piece, rows)
            torch.autograd.backward(mean * (part * world))
        total += mean.item() * part
    return total
