from pathlib import Path

import numpy as np
import pytest

from edge_pretrain.cluster import LARGEST_SHARE, ClusterTree, _balance, balanced_kmeans, build_tree
from edge_runtime._core import Tree

FANOUT, DEPTH, DIM = 4, 3, 12


def points(count: int, seed: int = 0) -> np.ndarray:
    """Unit vectors in clumps of very different sizes."""
    random = np.random.default_rng(seed)
    centres = random.standard_normal((20, DIM))
    sizes = 1 / np.arange(1, 21)
    chosen = centres[random.choice(20, count, p=sizes / sizes.sum())]
    found = chosen + 0.3 * random.standard_normal((count, DIM))
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def tree() -> ClusterTree:
    return build_tree(points(2000), FANOUT, DEPTH, seed=1)


def greedy(tree: ClusterTree, point: np.ndarray, blocked: int | None = None) -> int:
    """The definition, spelt out: at each level the nearest child that is not empty."""
    node = 0
    for level in range(tree.depth):
        children = [node * tree.fanout + i for i in range(tree.fanout)]
        open_children = [c for c in children if tree.documents[level][c] and (level or c != blocked)]
        node = min(open_children, key=lambda c: float(((point - tree.centroids[level][c]) ** 2).sum()))
    return node


def test_lookup_is_the_greedy_descent(tree: ClusterTree):
    queries = points(200, seed=9)
    leaves = tree.lookup(queries)
    assert leaves.tolist() == [greedy(tree, q) for q in queries]
    top = leaves // FANOUT ** (DEPTH - 1)
    around = tree.lookup(queries, top)
    assert around.tolist() == [greedy(tree, q, t) for q, t in zip(queries, top, strict=True)]
    assert (around // FANOUT ** (DEPTH - 1) != top).all()


def test_document_counts_are_those_of_the_lookup(tree: ClusterTree):
    leaves = tree.lookup(points(2000))
    for level in range(DEPTH):
        nodes = leaves // FANOUT ** (DEPTH - 1 - level)
        assert np.bincount(nodes, minlength=FANOUT ** (level + 1)).tolist() == tree.documents[level].tolist()


def test_balancing_halves_what_is_too_large():
    random = np.random.default_rng(0)
    assigned = np.repeat([0, 1, 2, 3], [700, 100, 150, 50])
    counts = np.bincount(_balance(assigned, 4, random), minlength=4)
    assert counts.tolist() == [350, 100, 150, 400]
    even = np.repeat([0, 1, 2, 3], 25)
    assert _balance(even, 4, random).tolist() == even.tolist()


def test_clusters_are_more_even_than_plain_k_means():
    data = points(3000)
    centroids = balanced_kmeans(data, 8, np.random.default_rng(0))
    counts = np.bincount(((data[:, None] - centroids) ** 2).sum(-1).argmin(1), minlength=8)
    assert counts.min() > 0
    # Lookup has no balancing, so that shares may pass the limit of training, but not by much.
    assert counts.max() < 2 * LARGEST_SHARE / 8 * len(data)


def test_fewer_points_than_clusters_leave_empty_ones():
    data = points(5)
    tree = build_tree(data, FANOUT, 2, seed=0)
    assert tree.documents[0].sum() == tree.documents[1].sum() == 5
    assert (tree.documents[1] == 0).any()
    for leaf in tree.lookup(points(50, seed=3)):
        assert tree.documents[1][leaf] > 0


def test_the_same_seed_gives_the_same_tree(tree: ClusterTree):
    again = build_tree(points(2000), FANOUT, DEPTH, seed=1)
    assert all((a == b).all() for a, b in zip(again.centroids, tree.centroids, strict=True))


def test_the_runtime_descends_the_written_tree_alike(tree: ClusterTree, tmp_path: Path):
    path = tmp_path / "tree.safetensors"
    tree.write(path)
    runtime = Tree(str(path))
    assert (runtime.fanout, runtime.depth, runtime.dim) == (FANOUT, DEPTH, DIM)
    queries = points(100, seed=5)
    leaves = tree.lookup(queries)
    tops = leaves // FANOUT ** (DEPTH - 1)
    around = tree.lookup(queries, tops)
    for query, leaf, top, other in zip(queries, leaves, tops, around, strict=True):
        path_of = [int(leaf) // FANOUT ** (DEPTH - level) for level in range(1, DEPTH + 1)]
        assert runtime.descend(query)[0] == path_of
        path_of = [int(other) // FANOUT ** (DEPTH - level) for level in range(1, DEPTH + 1)]
        assert runtime.descend(query, [(1, int(top))])[0] == path_of
