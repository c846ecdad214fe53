"""ExecuTorch's own Python runtime, which loads a program with a .ptd file, opened to swap that file."""

from __future__ import annotations

from typing import Any

import executorch.extension.llm.custom_ops.custom_ops  # noqa: F401  # the programs' attention
import torch
from executorch.extension.pybindings import portable_lib

from edge_bench.charged import peak_resident
from edge_bench.peers.swapping import Swap, swap_loaded


class DataWorker:
    """Its public methods give JSON values, and are what a worker can be asked."""

    def __init__(self) -> None:
        self._program = ""
        self._modules: dict[str, Any] = {}

    def open(self, program: str, threads: int) -> None:
        portable_lib._unsafe_reset_threadpool(threads)
        self._program = program

    def peak(self) -> int:
        return peak_resident()

    def swap(self, state: str, files: list[str], number: int) -> Swap:
        """To the data of files[number] from that of the other one. resident: the program is loaded with both."""
        return swap_loaded(state, files[number - 1], files[number], self._modules, self._load, token_at)

    def _load(self, data: str) -> Any:
        return portable_lib._load_for_executorch(self._program, data)


def token_at(module: Any, position: int) -> Any:
    return module.forward([torch.zeros(1, 1, dtype=torch.long), torch.tensor([position])])
