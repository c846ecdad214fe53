"""Level files to measure with: random int8 blocks of the sizes that the paper's three anchors have.

Pouransari et al. 2025, table 1 and appendix C: rows a level (r1, r2, r3), 16 children a node.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edge_runtime._core import LevelWriter
from edge_runtime.bank_header import LevelSpec, read_header
from edge_runtime.errors import InvalidArgumentError, StorageError
from edge_runtime.pager import Node

GENERATION = 2  # of what the writers below write: files of another one are made again
HEADROOM = 1.05  # of disk space: headers, tables and what the file system keeps for itself
SPARSE_BYTES = 100e6  # of headers and tables, at most


@dataclass(frozen=True)
class BankConfig:
    """The shape of a bank."""

    name: str
    d_model: int
    layers: int
    rows: tuple[int, ...]  # of a block, from level 1 on
    fanout: int = 16
    dtype: str = "i8"
    scale: float = 1.0  # of the values, which are whole numbers from -128 to 127 before it

    def spec(self, level: int, blocks: int = 0) -> LevelSpec:
        """Of the file of one level with so many blocks."""
        r = self.rows[level - 1]
        tensors = tuple((name, r, self.d_model) for name in ("w1", "w2", "w3"))
        return LevelSpec(
            "ffn", level, self.fanout, self.dtype, self.d_model, r, tuple(range(self.layers)), tensors, blocks
        )

    @property
    def levels(self) -> range:
        return range(1, len(self.rows) + 1)

    @property
    def strides(self) -> tuple[int, ...]:
        """Bytes of a block, from level 1 on."""
        return tuple(self.spec(level).stride for level in self.levels)

    @property
    def path_bytes(self) -> int:
        """Of one block a level: what a fetch brings."""
        return sum(self.strides)

    def path(self, leaf: int) -> list[Node]:
        """The nodes from level 1 to a node of the last level."""
        depth = len(self.rows)
        return [(level, leaf // self.fanout ** (depth - level)) for level in self.levels]


PAPER = {
    config.name: config
    for config in (
        BankConfig("160M", 512, 35, (256, 64, 16)),
        BankConfig("410M", 1024, 24, (512, 128, 32)),
        BankConfig("1.4B", 2048, 24, (768, 256, 16)),
    )
}


def sample_nodes(config: BankConfig, branches: int = 8) -> list[list[int]]:
    """The nodes, level by level, of a bank that is small on the disk and still has siblings at both depths.

    Each of the first `branches` nodes of level 1 has three children; the first of those has two, the others one.
    """
    k = config.fanout
    if len(config.rows) != 3 or k < branches or k < 3:
        raise InvalidArgumentError(
            f"{config.name}: a sample needs three levels and {branches} children a node"
        )
    middle = [b * k + c for b in range(branches) for c in range(3)]
    leaves = [m * k + c for m in middle for c in range(2 if m % k == 0 else 1)]
    return [list(range(branches)), middle, leaves]


def all_nodes(config: BankConfig) -> list[list[int]]:
    return [list(range(config.fanout**level)) for level in config.levels]


@dataclass(frozen=True)
class Bank:
    """A bank on the disk."""

    config: BankConfig
    directory: Path
    nodes: list[list[int]]  # that have a block, level by level, ascending: the n-th is row n
    _starts: dict[int, int] = field(
        default_factory=dict, repr=False, compare=False
    )  # of the blocks, by level

    @property
    def paths(self) -> list[Path]:
        """Of the level files, from level 1 on."""
        return [self.directory / f"level{level}.safetensors" for level in self.config.levels]

    @property
    def leaves(self) -> list[int]:
        return self.nodes[-1]

    @property
    def blocks_bytes(self) -> int:
        return sum(len(nodes) * stride for nodes, stride in zip(self.nodes, self.config.strides, strict=True))

    def block_offset(self, level: int, row: int) -> int:
        """In the file of the level."""
        if level not in self._starts:
            self._starts[level] = read_header(self.paths[level - 1])[1]
        return self._starts[level] + row * self.config.strides[level - 1]

    def rows(self, leaf: int) -> list[int]:
        """The row, level by level, that holds the block of the leaf's path."""
        path = self.config.path(leaf)
        return [nodes.index(node) for nodes, (_, node) in zip(self.nodes, path, strict=True)]


def require_space(directory: Path, size: float, what: str) -> None:
    """Raises StorageError unless the disk has room for so many bytes. REQUIRES that the directory is there."""
    free = shutil.disk_usage(directory).free
    if free < size:
        raise StorageError(
            f"{directory}: {what} needs {size / 1e9:.1f} GB and the disk has {free / 1e9:.1f} GB free: "
            "free some, or name a directory on another disk"
        )


def random_block(config: BankConfig, rows: int, seed: Sequence[int]) -> npt.NDArray[np.float32]:
    """f32 [layers, 3, rows, d_model]. Nothing else of that size is left behind, or twice there on the way."""
    shape = (config.layers, 3, rows, config.d_model)
    values = np.frombuffer(np.random.default_rng(seed).bytes(int(np.prod(shape))), np.int8)
    block = values.astype(np.float32).reshape(shape)
    block *= np.float32(config.scale)
    return block


def make_bank(
    config: BankConfig, directory: Path, nodes: Sequence[Sequence[int]], seed: int = 0, sparse: bool = False
) -> Iterator[tuple[Path, int]]:
    """Writes the level files, unless they are there already. Yields (file, bytes) after each block.

    sparse: blocks are holes in the files: they take no room, read as zeros, and cost no disk a read.
    Raises StorageError where the disk is too small.
    """
    bank = Bank(config, directory, [sorted(level) for level in nodes])
    stamp = directory / "bank.json"
    wanted = {"generation": GENERATION, "seed": seed, "config": asdict(config), "nodes": bank.nodes}
    if sparse:
        wanted["sparse"] = True
    text = json.dumps(wanted)
    directory.mkdir(parents=True, exist_ok=True)
    if stamp.is_file() and stamp.read_text(encoding="utf-8") == text and all(p.is_file() for p in bank.paths):
        return
    stamp.unlink(missing_ok=True)
    for path in bank.paths:
        path.unlink(missing_ok=True)
    stored = SPARSE_BYTES if sparse else bank.blocks_bytes * HEADROOM
    require_space(directory, stored, f"the bank of the {config.name} anchor")
    for level, path in zip(config.levels, bank.paths, strict=True):
        spec = config.spec(level)
        writer = LevelWriter(
            str(path),
            level,
            config.fanout,
            spec.dtype,
            spec.d_model,
            spec.rows_per_block,
            spec.anchor_layers,
            len(bank.nodes[level - 1]),
        )
        for node in bank.nodes[level - 1]:
            if sparse:
                writer.append_hole(node)
            else:
                writer.append(node, random_block(config, spec.rows_per_block, [seed, level, node]))
            yield path, spec.stride
        writer.finish()
    stamp.write_text(text, encoding="utf-8")
