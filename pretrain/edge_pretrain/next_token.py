"""The loss of next tokens within documents."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edge_pretrain.model import Anchor, MemoryReader, MemoryRows


def targets_of(tokens: Tensor, documents: Tensor) -> Tensor:
    """The next token of each position, -100 where a document ends. i64 [B, T] each."""
    targets = torch.full_like(tokens, -100)
    same = (documents[:, 1:] == documents[:, :-1]) & (documents[:, 1:] >= 0)
    targets[:, :-1] = tokens[:, 1:].masked_fill(~same, -100)
    return targets


def next_token_loss(
    anchor: MemoryReader, tokens: Tensor, documents: Tensor, memory: MemoryRows | None
) -> Tensor:
    """Mean cross-entropy over the next tokens within documents, nats; 0 where there is none."""
    targets = targets_of(tokens, documents)
    wanted = targets >= 0
    hidden = anchor.hidden(tokens, memory, documents)[wanted]
    total = F.cross_entropy(anchor.logits(hidden), targets[wanted], reduction="sum")
    return total / max(1, len(hidden))


class NextTokenLoss(nn.Module):
    """`next_token_loss` as a module, which DistributedDataParallel asks for."""

    def __init__(self, anchor: Anchor) -> None:
        super().__init__()
        self.anchor = anchor

    def forward(self, tokens: Tensor, documents: Tensor, memory: MemoryRows | None) -> Tensor:
        return next_token_loss(self.anchor, tokens, documents, memory)
