"""From a prompt to a path in the tree (Pouransari et al. 2025, section 2.1 and appendix C)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Protocol

import numpy as np
import numpy.typing as npt

from edge_runtime.errors import InvalidArgumentError
from edge_runtime.pager import Node
from edge_runtime.text import readable


class Embedder(Protocol):
    """Turns text into a point of the tree's space."""

    def embed(self, text: str) -> npt.NDArray[np.float32]:
        """f32 [dim], L2-normalised. REQUIRES text that UTF-8 can encode."""
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
    def rank(
        self,
        embedding: npt.NDArray[np.float32],
        count: int,
        blocked: Sequence[Node] = ...,
        depth: int | None = None,
    ) -> list[tuple[list[int], float]]: ...
    def conceded(
        self, embedding: npt.NDArray[np.float32], path: Sequence[int], blocked: Sequence[Node] = ...
    ) -> float: ...


@dataclass(frozen=True)
class Route:
    """`path[l - 1]`: the chosen node of level l; `margins[l - 1]`: the runner-up's squared distance less its own.

    A margin is the router's confidence at a level: infinity for an only child, negative where a path in use was
    kept although another node is nearer. The path is short, or empty, where blocked and empty clusters leave no
    child. `others`: the next best paths, each with what it concedes to the nearest nodes, in squared distance.
    """

    path: list[int]
    margins: list[float]
    others: list[tuple[list[int], float]] = field(default_factory=list)

    @property
    def nodes(self) -> list[Node]:
        """The (level, node) pairs of the path and of the others, each once, by level."""
        paths = [self.path, *(path for path, _ in self.others)]
        return sorted({(level, node) for path in paths for level, node in enumerate(path, start=1)})

    def confident(self, min_margin: float) -> Route:
        """The route down to the last level before the first margin below `min_margin`; then without others."""
        sure = next((i for i, margin in enumerate(self.margins) if margin < min_margin), len(self.path))
        return self if sure == len(self.path) else Route(self.path[:sure], self.margins[:sure])


class Router:
    """Greedy descent of an embedded prompt; nodes that the bundle blocks are never chosen."""

    def __init__(self, tree: Tree, embedder: Embedder, blocked: Sequence[Node] = ()) -> None:
        self._tree, self._embedder, self._blocked = tree, embedder, list(blocked)

    def route(
        self,
        prompt: str,
        blocked: Sequence[Node] = (),
        depth: int | None = None,
        *,
        top_paths: int = 1,
        keep: Sequence[int] = (),
        hysteresis: float = 0.0,
    ) -> Route:
        """The path of a prompt, any text.

        Args:
            blocked: (level, node) pairs that are shut as well, each with its subtree.
            depth: the last level of the path; None for the tree's.
            top_paths: how many paths are wanted, the best one among them.
            keep: a path in use, which is the result where it concedes no more than `hysteresis`.

        Raises:
            InvalidArgumentError: a blocked node or a kept path that the tree does not have; top_paths is none.
        """
        for level, node in blocked:
            if not (1 <= level <= self._tree.depth and 0 <= node < self._tree.fanout**level):
                raise InvalidArgumentError(
                    f"blocked node {level}:{node}: the tree has levels 1..{self._tree.depth}, "
                    f"level l with {self._tree.fanout}^l nodes"
                )
        shut = [*self._blocked, *blocked]
        embedding = self._embedder.embed(readable(prompt))
        route = Route(*self._tree.descend(embedding, shut, depth))
        if keep and list(keep) != route.path:
            route = self._kept(embedding, list(keep), shut, hysteresis) or route
        if top_paths != 1:
            ranked = self._tree.rank(embedding, top_paths, shut, depth)
            others = [(path, conceded) for path, conceded in ranked if path != route.path]
            route = replace(route, others=others[: top_paths - 1])
        return route

    def _kept(
        self, embedding: npt.NDArray[np.float32], path: list[int], shut: list[Node], hysteresis: float
    ) -> Route | None:
        """The route that stays on `path`, None where that concedes too much."""
        conceded = [0.0, *(self._tree.conceded(embedding, path[:n], shut) for n in range(1, len(path) + 1))]
        if conceded[-1] > hysteresis or math.isinf(conceded[-1]):  # infinite: one of its nodes is shut
            return None
        return Route(path, [before - after for before, after in pairwise(conceded)])
