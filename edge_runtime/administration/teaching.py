"""Blocks that were taught are put into a bundle, and taken out again, each as one change of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_runtime import _core
from edge_runtime.administration.edit import Advance, Attachment, BundleEdit, NewFile, Outcome, editing
from edge_runtime.administration.level_files import LevelFiles
from edge_runtime.administration.nodes import files_of, shown
from edge_runtime.administration.provenance import Taught, Teaching
from edge_runtime.bank_state import Node
from edge_runtime.errors import InvalidArgumentError, NotFoundError
from edge_runtime.trees import TreeArrays

Blocks = Mapping[int, npt.NDArray[np.float32]]


@dataclass(frozen=True)
class Lesson:
    """What was taught: blocks of `level`, f32 [layers, 3, r, d] by node, and the documents that they learnt from.

    tree: the tree that leads to personal blocks; None where the bank's own blocks have learnt.
    """

    level: int
    blocks: Blocks
    documents: Sequence[Taught]
    tree: TreeArrays | None = None


def put(directory: Path, lesson: Lesson) -> Outcome:
    """Puts taught blocks into a bundle; all others stay byte for byte.

    Raises:
        EdgeRuntimeError, OSError: as `BundleEdit.commit`.
    """
    with editing(directory) as edit:
        teaching = Teaching.read(edit.bundle).with_documents(list(lesson.documents))
        attachments = []
        if lesson.tree is not None:
            teaching = replace(teaching, personal=lesson.level)
            attachments.append(tree_attachment(edit, lesson.tree))
        else:
            files = files_of(edit, lesson.level)
            known = {node for level, node in Teaching.read(edit.bundle).nodes if level == lesson.level}
            if fresh := sorted(set(lesson.blocks) - known):
                original = _original(edit, lesson.level, files, fresh)
                attachments.append(original)
                teaching = replace(teaching, originals=(*teaching.originals, original.name))
        attachments.append(teaching.attachment(edit))
        state = edit.bundle.state
        given = {(lesson.level, node) for node in lesson.blocks}
        return edit.commit(
            replace(state, removed=state.removed - given), [_level(edit, lesson)], attachments=attachments
        )


def _level(edit: BundleEdit, lesson: Lesson) -> NewFile:
    """The level with the blocks: an overlay, or a level of its own, as its parents are stored."""
    memory, nodes = edit.memory, sorted(lesson.blocks)
    name = edit.level_name(lesson.level)
    found = memory.level(lesson.level)
    make: Callable[[Path], _core.LevelWriter]
    if found is not None:
        files = files_of(edit, lesson.level)
        entry, stride = edit.level_entry(lesson.level), files.spec.stride
        entry = entry | {"files": [*entry["files"], name]}
        make = partial(files.writer, rows=len(nodes))
    else:
        block = lesson.blocks[nodes[0]]
        like = LevelFiles([edit.bundle.path_of(memory.levels[-1].files[0])]).spec
        rows, layers = block.shape[2], list(memory.layers)
        fanout, dtype, level = memory.fanout, like.dtype, lesson.level

        def make(path: Path) -> _core.LevelWriter:
            return _core.LevelWriter(str(path), level, fanout, dtype, like.d_model, rows, layers, len(nodes))

        tensors = tuple((name, rows, like.d_model) for name in ("w1", "w2", "w3"))
        stride = replace(like, level=level, rows_per_block=rows, tensors=tensors).stride
        entry = {"level": level, "rows": rows, "dtype": dtype, "nodes": fanout**level, "block_bytes": stride}
        entry["files"] = [name]

    def write(path: Path, advance: Advance) -> None:
        writer = make(path)
        for node in nodes:
            writer.append(node, np.ascontiguousarray(lesson.blocks[node]))
            advance(stride)
        writer.finish()

    return NewFile(entry, name, len(nodes) * stride, write)


def _original(edit: BundleEdit, level: int, files: LevelFiles, nodes: Sequence[int]) -> Attachment:
    """What blocks were before they were taught."""
    folder = PurePosixPath(edit.bundle.manifest.state_path).parent
    name = str(folder / f"untaught{level}-{edit.revision}.safetensors")
    return Attachment(
        name, lambda path: files.write_copy(path, lambda _: None, nodes), lambda _: [], tables=True
    )


def tree_attachment(edit: BundleEdit, tree: TreeArrays) -> Attachment:
    """The tree as a file of the edit's revision."""
    name, fanout = f"router/tree-{edit.revision}.safetensors", edit.memory.fanout

    def refer(data: dict[str, Any]) -> list[str]:
        old = data["router"]["tree"]
        data["router"] |= {"tree": name, "depth": len(tree.centroids)}
        return [old]

    return Attachment(name, lambda path: tree.write(path, fanout), refer)


@dataclass(frozen=True)
class Forgotten:
    """`also`: documents that had shared one of the blocks, and have lost it with them."""

    outcome: Outcome
    removed: tuple[Node, ...]
    restored: tuple[Node, ...]
    also: tuple[str, ...]


def forget(directory: Path, documents: Sequence[str] = (), nodes: Sequence[Node] = ()) -> Forgotten:
    """Takes out what blocks learnt from documents: personal blocks are erased, others are what they were before.

    documents: names as `teach` recorded them, or sha256s.

    Raises:
        NotFoundError: a document or node that nothing was taught of.
        EdgeRuntimeError, OSError: as `BundleEdit.commit`.
    """
    with editing(directory) as edit:
        teaching = Teaching.read(edit.bundle)
        gone = set(nodes)
        for wanted in documents:
            named = [one for one in teaching.documents if wanted in (one.name, one.sha256)]
            if not named:
                known = ", ".join(one.name for one in teaching.documents[:5]) or "nothing"
                raise NotFoundError(f"{directory}: it was not taught {wanted}; it was taught {known}")
            gone |= {node for one in named for node in one.nodes}
        if strange := gone - teaching.nodes:
            raise NotFoundError(f"{directory}: nothing was taught to {shown(strange)}")
        if not gone:
            raise InvalidArgumentError("name documents or nodes to forget")
        named_ones = set(documents)
        also = sorted(
            {
                one.name
                for node in gone
                for one in teaching.of(node)
                if documents and not named_ones & {one.name, one.sha256}
            }
        )
        personal = {node for node in gone if node[0] == teaching.personal}
        after = teaching.without(gone)
        new_files, attachments = [], []
        if personal:
            erased, tree = _erased(edit, teaching, personal)
            new_files.append(erased)
            attachments.append(tree)
        restored = gone - personal
        for level in sorted({level for level, _ in restored}):
            chosen = [node for at, node in sorted(restored) if at == level]
            new_files.append(_restored(edit, teaching, level, chosen))
        attachments.append(after.attachment(edit))
        outcome = edit.commit(edit.bundle.state, new_files, attachments=attachments)
        return Forgotten(outcome, tuple(sorted(personal)), tuple(sorted(restored)), tuple(also))


def _erased(edit: BundleEdit, teaching: Teaching, gone: set[Node]) -> tuple[NewFile, Attachment]:
    """The personal level and its tree without these blocks; a leaf that keeps none ends as it did before."""
    level, fanout = next(iter(gone))[0], edit.memory.fanout
    files = files_of(edit, level)
    kept = files.nodes(without={node for _, node in gone})
    name = edit.level_name(level)
    entry = edit.level_entry(level) | {"files": [name]}
    assert edit.bundle.manifest.router is not None
    tree = TreeArrays.read(edit.bundle.path_of(edit.bundle.manifest.router.tree))
    documents, centroids = tree.documents[level - 1], tree.centroids[level - 1]
    shut = [node for _, node in gone]
    for leaf in {node // fanout for node in shut} - {node // fanout for node in kept}:
        shut += range(leaf * fanout, (leaf + 1) * fanout)
    documents[shut], centroids[shut] = 0, 0
    size = len(kept) * files.spec.stride
    return NewFile(entry, name, size, partial(files.write_copy, nodes=kept)), tree_attachment(edit, tree)


def _restored(edit: BundleEdit, teaching: Teaching, level: int, nodes: Sequence[int]) -> NewFile:
    """The level written anew with the blocks as they were: what they had learnt is in no file any more."""
    files = files_of(edit, level)
    originals = [LevelFiles([edit.bundle.path_of(name)]) for name in teaching.originals]
    originals = [one for one in originals if one.spec.level == level]
    name = edit.level_name(level)
    entry = edit.level_entry(level) | {"files": [name]}
    kept = files.nodes()

    def write(path: Path, advance: Advance) -> None:
        writer = files.writer(path, len(kept))
        for node in kept:
            source = next((one for one in originals if one.has(node)), None) if node in nodes else None
            (source or files).copy(node, writer)
            advance(files.spec.stride)
        writer.finish()

    return NewFile(entry, name, len(kept) * files.spec.stride, write)
