"""Distillation: regress the teacher's embedding, then choose the teacher's child at every node of the tree.

The student is trained on points of the teacher's space: documents and prompt-like cuts of them. The second part
adds, for each level, the cross-entropy of the siblings along the teacher's path, where a sibling's logit is its
negative squared distance over a temperature and the target is the teacher's own distribution over them.
"""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from edge_pretrain.cluster import ClusterTree, Embeddings
from edge_pretrain.router.config import DistillConfig
from edge_pretrain.router.features import Features
from edge_pretrain.router.student import Student, StudentShape
from edge_pretrain.train import Schedule

SHUT = 1e4  # the distance to an empty cluster
WARMUP = 50  # steps


class Siblings:
    """The tree's centroids, for distances to the children of a node."""

    def __init__(self, tree: ClusterTree) -> None:
        self._fanout = tree.fanout
        self._centroids = [torch.from_numpy(level) for level in tree.centroids]
        self._closed = [torch.from_numpy(level) == 0 for level in tree.documents]

    @property
    def depth(self) -> int:
        return len(self._centroids)

    def distances(self, points: Tensor, level: int, parents: Tensor) -> Tensor:
        """f32 [n, fanout]: squared distances to the children, of level `level` from 1, of nodes i64 [n]."""
        children = parents[:, None] * self._fanout + torch.arange(self._fanout)
        centroids = self._centroids[level - 1][children]
        squares = points.square().sum(1, keepdim=True) + centroids.square().sum(2)
        found = squares - 2 * torch.einsum("nd,nkd->nk", points, centroids)
        return found.masked_fill(self._closed[level - 1][children], SHUT)


def paths_of(tree: ClusterTree, embeddings: Embeddings) -> NDArray[np.int64]:
    """i64 [n, depth]: the node of each level."""
    leaves = tree.lookup(embeddings)
    return np.stack([leaves // tree.fanout ** (tree.depth - level) for level in range(1, tree.depth + 1)], 1)


def sibling_loss(
    siblings: Siblings, points: Tensor, wanted: Tensor, paths: Tensor, temperature: float
) -> Tensor:
    """The cross-entropy over the siblings along the paths i64 [n, depth], added up over the levels."""
    loss = points.new_zeros(())
    parents = torch.zeros(len(points), dtype=torch.long)
    for level in range(1, siblings.depth + 1):
        target = F.softmax(-siblings.distances(wanted, level, parents) / temperature, dim=1)
        logits = -siblings.distances(points, level, parents) / temperature
        loss = loss + F.cross_entropy(logits, target)
        parents = paths[:, level - 1]
    return loss


def distill(
    features: Features,
    targets: Embeddings,
    tree: ClusterTree,
    vocab_size: int,
    config: DistillConfig,
    seed: int,
    progress: Callable[[float], None] = lambda loss: None,
) -> Student:
    """A student of the teacher's embeddings f32 [n, dim]; `progress` is told the loss of each step."""
    shape = StudentShape(vocab_size, targets.shape[1], config.width, config.order, config.ngram_rows)
    student = Student(shape, torch.Generator().manual_seed(seed))
    wanted, paths = torch.from_numpy(targets), torch.from_numpy(paths_of(tree, targets))
    siblings = Siblings(tree)
    optimizer = torch.optim.Adam(student.parameters(), betas=(0.9, 0.99))
    schedule = Schedule(config.learning_rate, 0.02 * config.learning_rate)
    random = np.random.default_rng([seed, 302])
    for step in range(config.steps):
        chosen = random.integers(len(features), size=config.batch)
        rows, starts = features.batch(chosen)
        points = student(rows, starts)
        loss = (1 - (points * wanted[chosen]).sum(1)).mean()
        if step >= config.regress * config.steps:
            loss = loss + config.siblings * sibling_loss(
                siblings, points, wanted[chosen], paths[chosen], config.temperature
            )
        for group in optimizer.param_groups:
            group["lr"] = schedule.at(step, config.steps, WARMUP)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        progress(loss.item())
    return student
