"""Remove and compact: blocks that are hidden at once, and bytes that are gone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from edge_runtime.administration.edit import BundleEdit, NewFile, Outcome, Report, editing, silent
from edge_runtime.administration.nodes import check_in_tree, files_of, shown
from edge_runtime.bank_state import BankState, Node
from edge_runtime.errors import NotFoundError


def remove(
    directory: str | Path, nodes: Sequence[Node], erase: bool = False, report: Report = silent
) -> Outcome:
    """The nodes have no block any more; their children keep theirs.

    Their bytes stay in the level file, where nobody reads them, until `compact`; with `erase` the levels are
    compacted in the same step.

    Raises:
        NotFoundError: no such node, or one that never had a block.
        ChecksumError, BadFormatError: with `erase`, a block that is kept is damaged.
        EdgeRuntimeError, OSError: as `BundleEdit.commit`.
    """
    with editing(Path(directory)) as edit:
        check_in_tree(edit, nodes)
        state = edit.bundle.state
        for node in sorted(set(nodes) - state.removed):
            if not files_of(edit, node[0]).has(node[1]):
                raise NotFoundError(f"{edit.bundle.directory}: {shown([node])} has no block")
        if already := set(nodes) & state.removed:
            edit.notes.append(f"removed already: {shown(already)}")
        after = replace(state, removed=state.removed | set(nodes))
        levels = {level for level, _ in nodes} if erase else set()
        return edit.commit(after, _compacted(edit, after, levels), report)


def compact(directory: str | Path, report: Report = silent) -> Outcome:
    """Folds overlays into their base and leaves removed blocks out.

    Each level that changes is written anew beside the old file, one block at a time, as its bytes are and
    verified on the way; the old files are unlinked once the new ones are the bundle's.

    Raises:
        ChecksumError, BadFormatError: a block is damaged; the message says where.
        EdgeRuntimeError, OSError: as `BundleEdit.commit`.
    """
    with editing(Path(directory)) as edit:
        state = edit.bundle.state
        new_files = _compacted(edit, state, (level.level for level in edit.memory.levels))
        if not new_files:
            edit.notes.append("nothing to compact: no overlays, and no removed block in the files")
        return edit.commit(state, new_files, report)


def _compacted(edit: BundleEdit, state: BankState, levels: Iterable[int]) -> list[NewFile]:
    new_files = []
    for level in sorted(levels):
        files = files_of(edit, level)
        kept = files.nodes(without={node for at, node in state.removed if at == level})
        entry = edit.level_entry(level)
        if len(entry["files"]) == 1 and len(kept) == files.rows:
            continue
        name = edit.level_name(level)
        write = partial(files.write_copy, nodes=kept)
        new_files.append(NewFile(entry | {"files": [name]}, name, len(kept) * files.spec.stride, write))
    return new_files
