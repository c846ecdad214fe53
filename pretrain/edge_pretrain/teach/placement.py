"""Which blocks learn a document: personal ones below the leaves that it is routed to, or the leaves' own.

A personal level lies one below the tree. Each section gets a child of its own under every leaf that it is routed to,
and one child without a block stands for what the leaf knew before: a prompt goes to whichever is nearer, so the
personal block is read for what it was taught and for little else.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from edge_pretrain.cluster import balanced_kmeans
from edge_pretrain.teach.documents import Section
from edge_runtime import _core
from edge_runtime.bundle import Bundle
from edge_runtime.embedders import open_embedder
from edge_runtime.errors import InvalidArgumentError, UnsupportedError
from edge_runtime.trees import TreeArrays

Embeddings = NDArray[np.float32]
STRAY = 0.15  # of a section's pieces, less are left out
OLD_CHILDREN = 4  # that stand for what a leaf knew, where its documents are at hand


class Routing:
    """The bundle's own router: what is taught is found by the same embedder that prompts are routed with."""

    def __init__(self, bundle: Bundle, threads: int) -> None:
        if bundle.manifest.router is None or bundle.manifest.memory is None:
            raise UnsupportedError(f"{bundle.directory}: teaching needs a memory bank and a router")
        self.spec = bundle.manifest.router
        self.path = bundle.path_of(self.spec.tree)
        self.tree = _core.Tree(str(self.path))
        self._embedder = open_embedder(bundle, None, threads)
        self._blocked = bundle.blocked

    def embed(self, texts: Sequence[str]) -> Embeddings:
        return np.stack([self._embedder.embed(text) for text in texts])

    def nodes(self, embeddings: Embeddings, level: int) -> list[int]:
        """The node of `level` of each, -1 where the descent ends above it."""
        paths = [self.tree.descend(row, self._blocked, level)[0] for row in embeddings]
        return [path[-1] if len(path) == level else -1 for path in paths]


@dataclass
class Placement:
    """What each block of `level` learns. `replayed`: earlier texts that reach it as well."""

    level: int
    taught: dict[int, list[Section]]
    replayed: dict[int, list[str]] = field(default_factory=lambda: defaultdict(list))
    tree: TreeArrays | None = None


def _leaves(routing: Routing, sections: Sequence[Section], level: int) -> dict[int, dict[int, Embeddings]]:
    """leaf -> section's index -> the embeddings of its heading and texts.

    Pieces of one section that the tree scatters are all taught in each of its leaves: a question may go to any.
    """
    found: dict[int, dict[int, Embeddings]] = defaultdict(dict)
    for index, section in enumerate(sections):
        embeddings = routing.embed([section.heading, *section.texts])
        reached = routing.nodes(embeddings, level)
        for leaf in set(reached) - {-1}:
            # A stray piece does not make a leaf the section's; its heading, which every question brings, does.
            if leaf == reached[0] or reached.count(leaf) >= STRAY * len(reached):
                found[leaf][index] = embeddings
    if not found:
        raise InvalidArgumentError("every document is routed to a blocked node: unblock some")
    return dict(sorted(found.items()))


def place_in_leaves(
    routing: Routing, level: int, sections: Sequence[Section], replay: Sequence[str]
) -> Placement:
    """The blocks of the bank's deepest level learn."""
    leaves = _leaves(routing, sections, level)
    placement = Placement(level, {leaf: [sections[i] for i in members] for leaf, members in leaves.items()})
    if replay:
        for text, leaf in zip(replay, routing.nodes(routing.embed(replay), level), strict=True):
            if leaf in placement.taught:
                placement.replayed[leaf].append(text)
    return placement


def place_personally(
    routing: Routing, level: int, sections: Sequence[Section], replay: Sequence[str], seed: int
) -> Placement:
    """Fresh blocks learn, children of the leaves at `level` - 1; the tree gets them as children."""
    fanout = routing.tree.fanout
    tree = TreeArrays.read(routing.path)
    if len(tree.centroids) < level:
        tree = tree.deepened(fanout)
    known: dict[int, list[Embeddings]] = defaultdict(list)
    earlier = routing.embed(replay) if replay else np.zeros((0, routing.tree.dim), np.float32)
    for row, leaf in zip(earlier, routing.nodes(earlier, level - 1), strict=True):
        known[leaf].append(row)
    placement = Placement(level, {}, tree=tree)
    centroids, documents = tree.centroids[level - 1], tree.documents[level - 1]
    for leaf, members in _leaves(routing, sections, level - 1).items():
        first = leaf * fanout
        children = [first + i for i in range(fanout)]
        if not documents[children].any():
            old = _old_children(tree.centroids[level - 2][leaf], known[leaf], [seed, leaf])
            centroids[first : first + len(old)], documents[first : first + len(old)] = old, 1
        free = [child for child in children if not documents[child]]
        if not free:
            raise InvalidArgumentError(
                f"leaf {level - 1}:{leaf} has no place for another block: `edge-runtime forget` something there"
            )
        for child, group in zip(free, _groups(members, len(free), [seed, leaf]), strict=False):
            rows = np.concatenate([members[index] for index in group])
            centroids[child], documents[child] = rows.mean(axis=0), len(rows)
            placement.taught[child] = [sections[index] for index in group]
    for text, row in zip(replay, earlier, strict=True):
        child = nearest_child(tree, row, routing.nodes(row[None], level - 1)[0], level, fanout)
        if child in placement.taught:
            placement.replayed[child].append(text)
    return placement


def nearest_child(tree: TreeArrays, row: Embeddings, leaf: int, level: int, fanout: int) -> int:
    """The child of `leaf` that an embedding is routed to, -1 for none."""
    if leaf < 0:
        return -1
    first = leaf * fanout
    distances = ((tree.centroids[level - 1][first : first + fanout] - row) ** 2).sum(axis=1)
    distances[tree.documents[level - 1][first : first + fanout] == 0] = np.inf
    best = int(distances.argmin())
    return first + best if np.isfinite(distances[best]) else -1


def _old_children(leaf: Embeddings, known: list[Embeddings], seed: list[int]) -> Embeddings:
    """Centroids of what the leaf knew: its own, or its documents' where they are at hand."""
    if len(known) < OLD_CHILDREN:
        return leaf[None]
    return balanced_kmeans(np.stack(known), OLD_CHILDREN, np.random.default_rng(seed))


def _groups(members: dict[int, Embeddings], places: int, seed: list[int]) -> Iterable[list[int]]:
    """The sections of a leaf in at most `places` groups: each alone where there is room, else alike ones together."""
    if len(members) <= places:
        return [[index] for index in members]
    means = np.stack([rows.mean(axis=0) for rows in members.values()])
    found = balanced_kmeans(means, places, np.random.default_rng(seed))
    nearest = ((means[:, None] - found) ** 2).sum(axis=2).argmin(axis=1)
    groups: dict[int, list[int]] = defaultdict(list)
    for index, group in zip(members, nearest, strict=True):
        groups[int(group)].append(index)
    return groups.values()
