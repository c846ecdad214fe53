"""Replace and add-level: blocks and levels that come from elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace as changed
from functools import partial
from pathlib import Path

from edge_runtime.administration.edit import Advance, BundleEdit, NewFile, Outcome, Report, editing, silent
from edge_runtime.administration.level_files import LevelFiles
from edge_runtime.administration.nodes import check_in_tree, files_of, shown
from edge_runtime.administration.sources import Source, open_source
from edge_runtime.bank_header import LevelSpec
from edge_runtime.bank_state import Node
from edge_runtime.errors import InvalidArgumentError


def replace(
    directory: str | Path, nodes: Sequence[Node], source: str | Path, report: Report = silent
) -> Outcome:
    """Gives the nodes the blocks of `source`; nodes that are removed, or never had a block, get one.

    A level of which nodes are named gets an overlay, a level file of these nodes only.

    Args:
        source: a safetensors file of one block, w1, w2 and w3 of [layers, r, d] in f32, f16 or bf16, for one node;
            or a level file, or another bundle: each named node's block is taken. Blocks of the level's dtype are
            copied as they are, others are quantised to it.

    Raises:
        NotFoundError: no such node, file, or block in the source.
        InvalidArgumentError: the source has another shape or belongs to another bank.
        ChecksumError, BadFormatError: the source is damaged.
        EdgeRuntimeError, OSError: as `BundleEdit.commit`.
    """
    with editing(Path(directory)) as edit:
        check_in_tree(edit, nodes)
        new_files = []
        for level in sorted({level for level, _ in nodes}):
            files = files_of(edit, level)
            chosen = sorted({node for at, node in nodes if at == level})
            blocks = open_source(Path(source), files.spec, chosen)
            entry = edit.level_entry(level)
            name = edit.level_name(level)
            write = partial(_write_overlay, files=files, blocks=blocks, nodes=chosen)
            size = len(chosen) * files.spec.stride
            new_files.append(NewFile(entry | {"files": [*entry["files"], name]}, name, size, write))
        state = edit.bundle.state
        if shut := {node for node in nodes if state.blocker_of(node, edit.memory.fanout)}:
            edit.notes.append(f"still blocked: {shown(shut)}")
        return edit.commit(changed(state, removed=state.removed - set(nodes)), new_files, report)


def _write_overlay(
    path: Path, advance: Advance, files: LevelFiles, blocks: Source, nodes: Sequence[int]
) -> None:
    writer = files.writer(path, len(nodes))
    for node in nodes:
        blocks.write(node, writer)
        advance(files.spec.stride)
    writer.finish()


def add_level(directory: str | Path, file: str | Path, report: Report = silent) -> Outcome:
    """Copies a level file into the bundle, as a level that its bank does not have: a deeper one, or a sparse one.

    Raises:
        InvalidArgumentError: the file does not belong to the bank, the bank has the level, or nothing would read it.
        ChecksumError, BadFormatError: the file is damaged.
        EdgeRuntimeError, OSError: as `BundleEdit.commit`.
    """
    path = Path(file)
    with editing(Path(directory)) as edit:
        files = LevelFiles([path])
        spec = files.spec
        _check_belongs(edit, spec, path)
        name = edit.level_name(spec.level)
        entry = {
            "level": spec.level,
            "rows": spec.rows_per_block,
            "dtype": spec.dtype,
            "nodes": spec.nodes,
            "block_bytes": spec.stride,
            "files": [name],
        }
        write = partial(files.write_copy, nodes=files.nodes())
        return edit.commit(edit.bundle.state, [NewFile(entry, name, files.rows * spec.stride, write)], report)


def _check_belongs(edit: BundleEdit, spec: LevelSpec, path: Path) -> None:
    manifest, memory = edit.bundle.manifest, edit.memory
    for what, theirs, ours in (
        ("kind", spec.kind, memory.kind),
        ("fanout", spec.fanout, memory.fanout),
        ("d_model", spec.d_model, manifest.anchor.d_model),
        ("anchor layers", spec.anchor_layers, memory.layers),
    ):
        if theirs != ours:
            raise InvalidArgumentError(
                f"{path}: its {what} is {theirs}, the bundle's {ours}: it belongs elsewhere"
            )
    if memory.level(spec.level) is not None:
        raise InvalidArgumentError(
            f"{path}: the bundle has a level {spec.level}: `edge-runtime bank replace` exchanges blocks of it"
        )
    # Routing ends at the tree's last level: no prompt would ever reach a block below.
    if manifest.router is not None and spec.level > manifest.router.depth:
        raise InvalidArgumentError(
            f"{path}: level {spec.level} lies below the router's tree of depth {manifest.router.depth}: "
            "no prompt would reach it"
        )
    for program in manifest.programs:
        if spec.dtype not in program.bank_dtypes:
            raise InvalidArgumentError(
                f"{path}: its dtype is {spec.dtype}, and {program.path} reads {', '.join(program.bank_dtypes)}"
            )
