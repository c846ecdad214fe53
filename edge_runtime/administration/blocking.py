"""Block and unblock: nodes that are never read, each with its subtree (Pouransari et al. 2025 use it for privacy)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from edge_runtime.administration.edit import Outcome, editing
from edge_runtime.administration.nodes import check_in_tree, shown
from edge_runtime.bank_state import Node
from edge_runtime.errors import InvalidArgumentError


def block(directory: str | Path, nodes: Sequence[Node]) -> Outcome:
    """Sessions opened from now on neither route to the nodes and their subtrees nor can they read them.

    The bytes stay: `unblock` brings them back, `remove` is for good.

    Raises:
        NotFoundError: no such node.
        EdgeRuntimeError, OSError: as `BundleEdit.commit`.
    """
    with editing(Path(directory)) as edit:
        check_in_tree(edit, nodes)
        state = edit.bundle.state
        if already := set(nodes) & state.blocked:
            edit.notes.append(f"blocked already: {shown(already)}")
        return edit.commit(replace(state, blocked=state.blocked | set(nodes)))


def unblock(directory: str | Path, nodes: Sequence[Node]) -> Outcome:
    """The inverse of `block`.

    Raises:
        NotFoundError: no such node.
        InvalidArgumentError: a node that is blocked with one above it, and would stay so.
        EdgeRuntimeError, OSError: as `BundleEdit.commit`.
    """
    with editing(Path(directory)) as edit:
        check_in_tree(edit, nodes)
        state = edit.bundle.state
        after = replace(state, blocked=state.blocked - set(nodes))
        for node in nodes:
            if blocker := after.blocker_of(node, edit.memory.fanout):
                raise InvalidArgumentError(
                    f"{edit.bundle.directory}: {shown([node])} lies below {shown([blocker])}, which is blocked: "
                    "unblock that"
                )
        if never := set(nodes) - state.blocked:
            edit.notes.append(f"not blocked: {shown(never)}")
        return edit.commit(after)
