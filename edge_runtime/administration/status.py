"""What a bank holds: blocks, overlays, and the bytes that a compaction would free."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edge_runtime.administration.level_files import LevelFiles
from edge_runtime.bank_state import Node
from edge_runtime.bundle import Bundle
from edge_runtime.errors import UnsupportedError


@dataclass(frozen=True)
class LevelStatus:
    level: int
    rows: int
    dtype: str
    nodes: int
    blocks: int  # nodes with a block
    files: tuple[str, ...]  # base first, overlays after
    bytes: int
    reclaimable_bytes: int  # blocks that are removed, or hidden by an overlay


@dataclass(frozen=True)
class BankStatus:
    revision: int
    levels: tuple[LevelStatus, ...]
    blocked: tuple[Node, ...]
    removed: tuple[Node, ...]


def status(directory: str | Path) -> BankStatus:
    """Reads headers and tables only. Raises what `Bundle.open` raises; UnsupportedError where there is no bank."""
    bundle = Bundle.open(directory)
    memory = bundle.manifest.memory
    if memory is None:
        raise UnsupportedError(f"{bundle.directory}: it has no memory bank")
    levels = []
    for level in memory.levels:
        files = LevelFiles([bundle.path_of(name) for name in level.files])
        blocks = len(files.nodes(without={node for at, node in bundle.removed if at == level.level}))
        levels.append(
            LevelStatus(
                level.level,
                level.rows,
                level.dtype,
                level.nodes,
                blocks,
                level.files,
                sum(bundle.manifest.files[name].bytes for name in level.files),
                (files.rows - blocks) * level.block_bytes,
            )
        )
    return BankStatus(bundle.manifest.revision, tuple(levels), tuple(bundle.blocked), tuple(bundle.removed))
