"""What prompts are about: recorded paths, or seeded ones."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edge_runtime.errors import BadFormatError, InvalidArgumentError, NotFoundError

KINDS = ("zipf", "drift", "users")
USERS = 4  # of the trace `users`
PAUSE_MS = 20_000.0  # between two prompts of one user: reading an answer and typing
TASTE_LASTS = 300  # prompts, in a conversation's trace


@dataclass(frozen=True)
class Visit:
    """A prompt: `path` is a node a level, from level 1 on; `pause_ms` follows the user's last answer."""

    path: tuple[int, ...]
    user: int = 0
    pause_ms: float = PAUSE_MS


@dataclass(frozen=True)
class Trace:
    name: str
    visits: tuple[Visit, ...]


class _Topics:
    """Leaves whose popularity is Zipf's (exponent 1) at every node; `taste` says which child is the popular one."""

    def __init__(self, seed: int, fanout: int, depth: int) -> None:
        self.fanout, self.depth, self.seed = fanout, depth, seed
        self.random = np.random.default_rng(seed)
        weights = 1 / np.arange(1, fanout + 1)
        self.zipf = weights / weights.sum()
        self.orders: dict[tuple[int, int, int], Any] = {}

    def _order(self, taste: int, level: int, node: int) -> Any:
        key = (taste, level, node)
        if key not in self.orders:
            self.orders[key] = np.random.default_rng([self.seed, *key]).permutation(self.fanout)
        return self.orders[key]

    def draw(self, taste: int, leaf: int = 0, kept: int = 0) -> int:
        """A leaf that shares the first `kept` levels with another one."""
        node = leaf // int(self.fanout ** (self.depth - kept))
        for level in range(kept, self.depth):
            rank = int(self.random.choice(self.fanout, p=self.zipf))
            node = node * self.fanout + int(self._order(taste, level, node)[rank])
        return node

    def converse(self, taste: int, leaf: int) -> int:
        """Half of the prompts stay, a quarter move to a sibling, 15% within the next branch, 10% anywhere."""
        move = self.random.random()
        if move < 0.5:
            return leaf
        kept = self.depth - 1 if move < 0.75 else max(0, self.depth - 2) if move < 0.9 else 0
        return self.draw(taste, leaf, kept)


def _leaves(kind: str, topics: _Topics, count: int) -> Iterator[tuple[int, int]]:
    if kind == "zipf":
        for _ in range(count):
            yield 0, topics.draw(0)
        return
    users = USERS if kind == "users" else 1
    leaves = [topics.draw(user) for user in range(users)]
    for i in range(count):
        user = int(topics.random.integers(users))
        leaves[user] = topics.converse(user + users * (i // TASTE_LASTS), leaves[user])
        yield user, leaves[user]


def generate(kind: str, prompts: int, seed: int, fanout: int, depth: int) -> Trace:
    """zipf: each prompt on its own; drift: one conversation whose taste changes; users: four of them at once."""
    if prompts < 1 or seed < 0:
        raise InvalidArgumentError(
            f"{prompts} prompts, seed {seed}: a trace needs a prompt, and a seed of 0 or more"
        )
    topics = _Topics(seed, fanout, depth)
    return Trace(
        f"{kind}, {prompts:,} prompts, seed {seed}",
        tuple(
            Visit(tuple(leaf // fanout ** (depth - level) for level in range(1, depth + 1)), user)
            for user, leaf in _leaves(kind, topics, prompts)
        ),
    )


def _visit(line: str, fanout: int, depth: int) -> Visit:
    """ValueError says what is wrong."""
    record = json.loads(line)
    if not isinstance(record, dict) or not isinstance(path := record.get("path"), list):
        raise ValueError("an object with a `path` is wanted")
    for level, node in enumerate(path, 1):
        if type(node) is not int or not 0 <= node < fanout**level:
            raise ValueError(f"{node!r} is no node of level {level}")
        if level > 1 and node // fanout != path[level - 2]:
            raise ValueError(f"node {node} of level {level} is no child of {path[level - 2]}")
    if not 0 < len(path) <= depth:
        raise ValueError(f"a path of {len(path)} nodes: the bank has {depth} levels")
    user, pause = record.get("user", 0), record.get("pause_ms", PAUSE_MS)
    if type(user) is not int or user < 0 or type(pause) not in (int, float) or not 0 <= pause < 1e12:
        raise ValueError("`user` must be a number of 0 or more and `pause_ms` 0 or more")
    return Visit(tuple(path), user, float(pause))


def read(path: Path, fanout: int, depth: int) -> Trace:
    """JSON lines, one a prompt, of which `path` counts, and where there are, `user` and `pause_ms`: what
    `edge-runtime route --json` and `edge-runtime run --json` print. NotFoundError, BadFormatError."""
    if not path.is_file():
        raise NotFoundError(f"{path}: no such trace: name a file of JSON lines with a `path` each")
    visits = []
    for number, line in enumerate(path.read_bytes().decode("utf-8", "replace").split("\n"), 1):
        if not line.strip():
            continue
        try:
            visits.append(_visit(line, fanout, depth))
        except ValueError as error:
            raise BadFormatError(f"{path}, line {number}: {error}") from None
    if not visits:
        raise BadFormatError(f"{path}: it has no prompts")
    return Trace(path.name, tuple(visits))
