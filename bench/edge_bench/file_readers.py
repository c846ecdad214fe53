"""Other readers: how else one reads a row of a file from Python.

Their best case: what can be copied out is copied into memory that is there already, by numpy: torch copies on several
threads, which wait for one another for tens of milliseconds where other work takes a core away.
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmap_ninja import numpy as ninja
from safetensors import safe_open

from edge_bench.banks import HEADROOM, Bank, require_space
from edge_bench.contestants import Blocks, Contestant, Target
from edge_runtime.bank_header import read_header


def memory(bank: Bank) -> Blocks:
    """One block a level, its pages in place."""
    return [np.ones(stride, np.uint8) for stride in bank.config.strides]


def level_array(bank: Bank, index: int) -> np.memmap[Any, np.dtype[np.uint8]]:
    """The blocks [rows, stride] of a level file, mapped."""
    spec, start = read_header(bank.paths[index])
    return np.memmap(bank.paths[index], np.uint8, "r", start, (spec.rows, spec.stride))


class MemmapContestant(Contestant):
    """np.memmap over the level file, copied out."""

    def __init__(self, bank: Bank) -> None:
        super().__init__("np.memmap copy", bank)
        self._out = memory(bank)
        self._levels: list[np.memmap[Any, np.dtype[np.uint8]]] = []
        self._read: list[int] = []

    def _open(self) -> list[np.memmap[Any, np.dtype[np.uint8]]]:
        return [level_array(self.bank, index) for index in range(len(self.bank.paths))]

    def prepare(self, target: Target) -> None:
        self._levels = self._open()

    def read(self, target: Target) -> None:
        self._read = [level - 1 for level, _ in target.nodes]
        for index, row in zip(self._read, target.rows, strict=True):
            np.copyto(self._out[index], self._levels[index][row])

    def blocks(self) -> Blocks:
        return [self._out[index] for index in self._read]

    def forget(self) -> None:
        self._levels = []


class NinjaContestant(MemmapContestant):
    """mmap-ninja: its own files, copied out."""

    def __init__(self, bank: Bank) -> None:
        super().__init__(bank)
        self.name = "mmap-ninja copy"
        self._directories = [bank.directory / "peers" / f"{path.stem}.ninja" for path in bank.paths]

    @property
    def files(self) -> list[Path]:
        return [directory / "data.ninja" for directory in self._directories]

    def ranges(self, target: Target) -> list[tuple[Path, int, int]]:
        return [
            (self.files[level - 1], row * self.bank.config.strides[level - 1], length)
            for (level, _), row, (_, _, length) in zip(
                target.nodes, target.rows, super().ranges(target), strict=True
            )
        ]

    def _open(self) -> list[np.memmap[Any, np.dtype[np.uint8]]]:
        return [ninja.open_existing(directory) for directory in self._directories]

    def make(self, index: int) -> None:
        ninja.from_ndarray(self._directories[index], level_array(self.bank, index)).flush()


class SafetensorsContestant(Contestant):
    """safe_open(...).get_slice over the level file. With "pt" the slice is mapped, so it is copied out."""

    def __init__(self, bank: Bank, framework: str) -> None:
        super().__init__(f"safetensors get_slice ({framework})", bank)
        self._framework = framework
        self._out = memory(bank)
        self._stack = ExitStack()
        self._slices: list[Any] = []
        self._blocks: Blocks = []

    def prepare(self, target: Target) -> None:
        files = [
            self._stack.enter_context(safe_open(path, framework=self._framework)) for path in self.bank.paths
        ]
        self._slices = [file.get_slice("blocks") for file in files]

    def read(self, target: Target) -> None:
        self._blocks = []
        for (level, _), row in zip(target.nodes, target.rows, strict=True):
            block = np.asarray(self._slices[level - 1][row : row + 1])[0]
            if self._framework == "pt":
                np.copyto(self._out[level - 1], block)
                block = self._out[level - 1]
            self._blocks.append(block)

    def blocks(self) -> Blocks:
        return self._blocks

    def forget(self) -> None:
        self._blocks = []
        self._slices = []
        self._stack.close()


class TorchContestant(Contestant):
    """torch.load(mmap=True) of its own files, copied out."""

    def __init__(self, bank: Bank) -> None:
        super().__init__("torch.load(mmap=True)", bank)
        self._paths = [bank.directory / "peers" / f"{path.stem}.pt" for path in bank.paths]
        self._out = memory(bank)
        self._levels: list[torch.Tensor] = []
        self._read: list[int] = []

    @property
    def files(self) -> list[Path]:
        return self._paths

    def ranges(self, target: Target) -> list[tuple[Path, int, int]]:
        # Where in the file a tensor lies is torch's business.
        return [
            (self._paths[level - 1], 0, self._paths[level - 1].stat().st_size) for level, _ in target.nodes
        ]

    def prepare(self, target: Target) -> None:
        self._levels = [torch.load(path, mmap=True, weights_only=True) for path in self._paths]

    def read(self, target: Target) -> None:
        self._read = [level - 1 for level, _ in target.nodes]
        for index, row in zip(self._read, target.rows, strict=True):
            np.copyto(self._out[index], self._levels[index][row].numpy())

    def blocks(self) -> Blocks:
        return [self._out[index] for index in self._read]

    def forget(self) -> None:
        self._levels = []

    def make(self, index: int) -> None:
        torch.save(torch.from_numpy(np.array(level_array(self.bank, index))), self._paths[index])


def make_peers(bank: Bank) -> list[Contestant]:
    """All peers, those with files of their own beside the bank. StorageError where the disk is too small."""
    own = (NinjaContestant(bank), TorchContestant(bank))
    stamp = bank.directory / "peers" / "made"
    source = str((bank.directory / "bank.json").stat().st_mtime_ns)
    if not stamp.is_file() or stamp.read_text(encoding="ascii") != source:
        stamp.parent.mkdir(exist_ok=True)
        stamp.unlink(missing_ok=True)
        size = bank.blocks_bytes * len(own) * HEADROOM
        require_space(stamp.parent, size, "the copies for mmap-ninja and torch")
        for peer in own:
            for index, path in enumerate(peer.files):
                peer.make(index)
                # A page that is not on the disk yet cannot be dropped.
                with path.open("rb") as file:
                    os.fsync(file.fileno())
        stamp.write_text(source, encoding="ascii")
    return [
        MemmapContestant(bank),
        own[0],
        SafetensorsContestant(bank, "np"),
        SafetensorsContestant(bank, "pt"),
        own[1],
    ]
