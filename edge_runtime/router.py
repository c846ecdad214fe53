"""From a prompt to a path in the tree (Pouransari et al. 2025, section 2.1 and appendix C)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from edge_runtime.errors import InvalidArgumentError
from edge_runtime.pager import Node


class Embedder(Protocol):
    """Turns text into a point of the tree's space."""

    def embed(self, text: str) -> npt.NDArray[np.float32]:
        """f32 [dim], L2-normalised."""
        ...


class Tree(Protocol):
    """The part of `_core.Tree` that routing needs."""

    @property
    def fanout(self) -> int: ...
    @property
    def depth(self) -> int: ...
    def descend(
        self, embedding: npt.NDArray[np.float32], blocked: Sequence[Node] = ..., depth: int | None = None
    ) -> tuple[list[int], list[float]]: ...


@dataclass(frozen=True)
class Route:
    """`path[l - 1]`: the chosen node of level l; `margins[l - 1]`: the runner-up's squared distance less its own.

    The path is short, or empty, where blocked and empty clusters leave no child.
    """

    path: list[int]
    margins: list[float]

    @property
    def nodes(self) -> list[Node]:
        """The path as (level, node) pairs."""
        return list(enumerate(self.path, start=1))


class Router:
    """Greedy descent of an embedded prompt; nodes that the bundle blocks are never chosen."""

    def __init__(self, tree: Tree, embedder: Embedder, blocked: Sequence[Node] = ()) -> None:
        self._tree, self._embedder, self._blocked = tree, embedder, list(blocked)

    def route(self, prompt: str, blocked: Sequence[Node] = (), depth: int | None = None) -> Route:
        """The path of a prompt. `blocked` names (level, node) pairs that are shut as well, each with its subtree.

        Raises:
            InvalidArgumentError: a blocked node that the tree does not have.
        """
        for level, node in blocked:
            if not (1 <= level <= self._tree.depth and 0 <= node < self._tree.fanout**level):
                raise InvalidArgumentError(
                    f"blocked node {level}:{node}: the tree has levels 1..{self._tree.depth}, "
                    f"level l with {self._tree.fanout}^l nodes"
                )
        embedding = self._embedder.embed(prompt)
        return Route(*self._tree.descend(embedding, [*self._blocked, *blocked], depth))
