"""ONNX Runtime, opened to be measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from edge_bench.peers.engine_worker import EngineWorker
from edge_bench.peers.swapping import Swap, prepare, timed_swap
from edge_runtime.engines import onnx as engine
from edge_runtime.errors import InvalidArgumentError

PAST = 8  # tokens in the cache while adapters are swapped


class OnnxRuntimeWorker(EngineWorker):
    def __init__(self) -> None:
        super().__init__()
        self._threads = 0
        self._with_adapters: Any = None
        self._adapters: dict[str, Any] = {}

    def open(self, bundle: str, **options: Any) -> dict[str, Any]:
        self._threads = options["threads"]
        engine.SPINNING = "1"  # a peer is measured with its own defaults
        return super().open(bundle, **options)

    def swap(self, state: str, number: int, files: list[str] | None = None) -> Swap:
        """To one adapter of files[1:] from the other one, in the program files[0]. resident: both are loaded."""
        if files is None:
            raise InvalidArgumentError("ONNX Runtime swaps adapters: it needs their files")
        session = self._program(files[0])
        old, new = files[1 + (number - 1) % 2], files[1 + number]
        if state == "resident":
            self._load(new)
        else:
            self._adapters.pop(new, None)
            prepare(state, [Path(new)])
        feeds = {one.name: _zeros(one) for one in session.get_inputs()}
        options = self._using(old)

        def use() -> None:
            nonlocal options
            options = self._using(new)

        return timed_swap(use, lambda: session.run(["logits"], feeds, options))

    def close_swaps(self) -> None:
        self._adapters.clear()
        self._with_adapters = None

    def _program(self, path: str) -> Any:
        if self._with_adapters is None:
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads, options.inter_op_num_threads = self._threads, 1
            options.log_severity_level = 3
            self._with_adapters = onnxruntime.InferenceSession(path, options, ["CPUExecutionProvider"])
        return self._with_adapters

    def _load(self, path: str) -> Any:
        if path not in self._adapters:
            self._adapters[path] = onnxruntime.LoraAdapter()
            self._adapters[path].Load(path)
        return self._adapters[path]

    def _using(self, path: str) -> Any:
        options = onnxruntime.RunOptions()
        options.add_active_adapter(self._load(path))
        return options


def _zeros(given: Any) -> np.ndarray[Any, Any]:
    """A token after PAST others, without memory."""
    # The exporter's names of symbolic sizes are torch's own affair; those of the inputs are the bundle format's.
    free = 1 if given.name == "tokens" else 0 if given.name.startswith("memory") else PAST
    shape = [dim if isinstance(dim, int) else free for dim in given.shape]
    kinds = {"tensor(int64)": np.int64, "tensor(float16)": np.float16, "tensor(float)": np.float32}
    return np.zeros(shape, kinds[given.type])
