"""Nodes that a command names, checked against the bundle."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from edge_runtime.administration.edit import BundleEdit
from edge_runtime.administration.level_files import LevelFiles
from edge_runtime.bank_state import Node
from edge_runtime.errors import NotFoundError


def shown(nodes: Iterable[Node]) -> str:
    """As commands take them: 1:7 2:113."""
    return " ".join(f"{level}:{index}" for level, index in sorted(nodes))


def check_in_tree(edit: BundleEdit, nodes: Sequence[Node]) -> None:
    """Raises NotFoundError for nodes that neither the tree nor the bank has."""
    memory, router = edit.memory, edit.bundle.manifest.router
    levels = {level.level for level in memory.levels} | set(range(1, router.depth + 1 if router else 1))
    for level, index in nodes:
        if level not in levels:
            known = ", ".join(map(str, sorted(levels)))
            raise NotFoundError(f"{edit.bundle.directory}: no level {level}; it has the levels {known}")
        if not 0 <= index < memory.fanout**level:
            raise NotFoundError(
                f"{edit.bundle.directory}: no node {level}:{index}; "
                f"level {level} has the nodes 0..{memory.fanout**level - 1}"
            )


def files_of(edit: BundleEdit, level: int) -> LevelFiles:
    """The level's files. NotFoundError where the bank has no such level."""
    found = edit.memory.level(level)
    if found is None:
        there = ", ".join(str(level.level) for level in edit.memory.levels)
        raise NotFoundError(
            f"{edit.bundle.directory}: the bank has no blocks of level {level}; it has those of {there}"
        )
    return LevelFiles([edit.bundle.path_of(name) for name in found.files])
