"""The tree: balanced hierarchical k-means, root to leaves, and its greedy lookup.

Pouransari et al. 2025, section 2.1 and appendix C: k-means++ seeding, EM steps on fresh samples, and balancing:
a cluster that holds more than 1.5 times its even share gives half of its members, drawn at random, to the
smallest cluster.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import kmeans_plusplus

STEPS = 20
SAMPLES = 6400
LARGEST_SHARE = 1.5  # times 1 / k
LOOKED_UP = 1024  # rows at once, each of which is compared with k centroids
AT_ONCE = 65536  # rows of embeddings, which may lie on a disk

Embeddings = NDArray[np.float32]
Nodes = NDArray[np.int64]


@dataclass(frozen=True)
class ClusterTree:
    """centroids[l - 1]: f32 [k^l, dim]; documents[l - 1]: i32 [k^l], 0 where a cluster is empty."""

    fanout: int
    centroids: list[Embeddings]
    documents: list[NDArray[np.int32]]

    @property
    def depth(self) -> int:
        return len(self.centroids)

    def lookup(self, embeddings: Embeddings, blocked: Nodes | None = None) -> Nodes:
        """Greedy descent. embeddings: f32 [n, dim]; returns the leaves, i64 [n].

        blocked: i64 [n], for each text the level-1 node whose subtree may not be chosen. Empty clusters are
        never chosen; the lower index wins a tie.
        """
        parts = [
            self._lookup(
                embeddings[i : i + LOOKED_UP], None if blocked is None else blocked[i : i + LOOKED_UP]
            )
            for i in range(0, len(embeddings), LOOKED_UP)
        ]
        return np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)

    def _lookup(self, embeddings: Embeddings, blocked: Nodes | None) -> Nodes:
        nodes = np.zeros(len(embeddings), dtype=np.int64)
        children = np.arange(self.fanout)
        for level, (centroids, documents) in enumerate(zip(self.centroids, self.documents, strict=True)):
            candidates = nodes[:, None] * self.fanout + children
            closed = documents[candidates] == 0
            if level == 0 and blocked is not None:
                closed |= candidates == blocked[:, None]
            differences = embeddings[:, None, :] - centroids[candidates]
            distances = np.where(closed, np.inf, np.einsum("nkd,nkd->nk", differences, differences))
            nodes = candidates[np.arange(len(nodes)), distances.argmin(axis=1)]
        return nodes

    def write(self, path: Path) -> None:
        """Write tree.safetensors (docs/bundle-format.md)."""
        from edge_runtime._core import write_tree

        write_tree(str(path), self.fanout, self.centroids, self.documents)


@dataclass(frozen=True)
class Split:
    """One node to be split: `members` i64 [n] are the rows of its documents."""

    level: int
    node: int
    members: Nodes
    fanout: int
    seed: int


def split_node(embeddings: Embeddings, job: Split) -> Embeddings:
    """The centroids of a node's children. Its random numbers depend on the seed and the node only."""
    random = np.random.default_rng([job.seed, job.level, job.node])
    return balanced_kmeans(embeddings, job.fanout, random, job.members)


def local_splits(embeddings: Embeddings, jobs: Iterable[Split]) -> list[Embeddings]:
    """Node after node, in this process."""
    return [split_node(embeddings, job) for job in jobs]


def build_tree(
    embeddings: Embeddings,
    fanout: int,
    depth: int,
    seed: int,
    splits: Callable[[Embeddings, Iterable[Split]], list[Embeddings]] = local_splits,
) -> ClusterTree:
    """Cluster documents' L2-normalised embeddings, f32 [n, dim], into fanout^depth leaves.

    splits: clusters the nodes of one level; `edge_pretrain.cluster_ray.ray_splits` does it on many machines.
    """
    dim = embeddings.shape[1]
    centroids = [np.zeros((fanout**level, dim), dtype=np.float32) for level in range(1, depth + 1)]
    documents = [np.zeros(fanout**level, dtype=np.int32) for level in range(1, depth + 1)]
    nodes = np.zeros(len(embeddings), dtype=np.int64)
    for level in range(depth):
        following = np.empty_like(nodes)
        jobs = [Split(level, int(n), np.flatnonzero(nodes == n), fanout, seed) for n in np.unique(nodes)]
        for job, found in zip(jobs, splits(embeddings, jobs), strict=True):
            parts = [job.members[i : i + AT_ONCE] for i in range(0, len(job.members), AT_ONCE)]
            assigned = np.concatenate([_nearest(embeddings[part], found) for part in parts])
            first = job.node * fanout
            centroids[level][first : first + len(found)] = found
            documents[level][first : first + fanout] = np.bincount(assigned, minlength=fanout)
            following[job.members] = first + assigned
        nodes = following
    return ClusterTree(fanout, centroids, documents)


def balanced_kmeans(
    points: Embeddings, k: int, random: np.random.Generator, members: Nodes | None = None
) -> Embeddings:
    """Centroids f32 [at most k, dim] of points f32 [n, dim]; fewer where there are fewer different points.

    members: i64, the rows that count, all if None. Of more than SAMPLES no step reads more.
    """
    rows = np.arange(len(points)) if members is None else members
    whole = points[rows] if len(rows) <= SAMPLES else None
    k = min(k, len(np.unique(points[rows[:: -(-len(rows) // SAMPLES)]], axis=0)))

    def sample() -> Embeddings:
        if whole is not None:
            return whole
        return points[rows[random.choice(len(rows), SAMPLES, replace=False)]]

    seed = int(random.integers(2**31))
    centroids = cast(Embeddings, kmeans_plusplus(sample(), k, random_state=seed)[0].astype(np.float32))
    for _ in range(STEPS):
        batch = sample()
        assigned = _balance(_nearest(batch, centroids), k, random)
        for cluster in range(k):
            members = batch[assigned == cluster]
            if len(members):
                centroids[cluster] = members.mean(axis=0)
    return centroids


def _nearest(points: Embeddings, centroids: Embeddings) -> Nodes:
    squares = (centroids * centroids).sum(axis=1)
    return cast(Nodes, (squares - 2 * points @ centroids.T).argmin(axis=1))


def _balance(assigned: Nodes, k: int, random: np.random.Generator) -> Nodes:
    assigned = assigned.copy()
    counts = np.bincount(assigned, minlength=k)
    for cluster in np.argsort(-counts):
        if counts[cluster] <= LARGEST_SHARE / k * len(assigned):
            break
        smallest = int(np.bincount(assigned, minlength=k).argmin())
        members = np.flatnonzero(assigned == cluster)
        assigned[random.choice(members, len(members) // 2, replace=False)] = smallest
    return assigned
