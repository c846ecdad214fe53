"""ExecuTorch, opened to be measured."""

from __future__ import annotations

from typing import Any

import numpy as np

from edge_bench.peers.engine_worker import TOKEN, EngineWorker
from edge_bench.peers.swapping import Swap, swap_loaded
from edge_runtime import _executorch
from edge_runtime.errors import InvalidArgumentError


class ExecuTorchWorker(EngineWorker):
    def __init__(self) -> None:
        super().__init__()
        self._threads, self._methods = 0, dict[str, Any]()

    def open(self, bundle: str, **options: Any) -> dict[str, Any]:
        self._threads = options["threads"]
        return super().open(bundle, **options)

    def swap(self, state: str, number: int, files: list[str] | None = None) -> Swap:
        """To the program files[number] from the other one. resident: both are loaded."""
        if files is None:
            raise InvalidArgumentError("ExecuTorch swaps programs: it needs their files")
        return swap_loaded(state, files[number - 1], files[number], self._methods, self._load, token_at)

    def close_swaps(self) -> None:
        self._methods.clear()

    def _load(self, path: str) -> Any:
        return _executorch.Program(path, self._threads).load_method()


def token_at(method: Any, position: int) -> Any:
    # No memory: an adapter would be part of the program.
    return method.execute([TOKEN[None], np.array([position], np.int64), np.zeros(1, np.int64)])
