"""ONNX Runtime GenAI, opened to swap adapters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime_genai

from edge_bench.charged import peak_resident
from edge_bench.peers.swapping import Swap, prepare, timed_swap

TOKEN = np.zeros(1, np.int32)


class GenAiWorker:
    """Its public methods give JSON values, and are what a worker can be asked."""

    def __init__(self) -> None:
        self._model: Any = None
        self._adapters: Any = None
        self._loaded: set[str] = set()

    def open(self, folder: str) -> None:
        self._model = onnxruntime_genai.Model(folder)
        self._adapters = onnxruntime_genai.Adapters(self._model)

    def peak(self) -> int:
        return peak_resident()

    def swap(self, state: str, files: list[str], number: int) -> Swap:
        """To the adapter files[number] from the other one. resident: both are loaded."""
        old, new = files[number - 1], files[number]
        if state == "resident":
            self._load(new)
        else:
            if new in self._loaded:
                # No generator uses it any more: each swap has one of its own.
                self._adapters.unload(new)
                self._loaded.remove(new)
            prepare(state, [Path(new)])
        self._load(old)
        generator = onnxruntime_genai.Generator(self._model, onnxruntime_genai.GeneratorParams(self._model))
        generator.set_active_adapter(self._adapters, old)

        def use() -> None:
            self._load(new)
            generator.set_active_adapter(self._adapters, new)

        def token() -> None:
            generator.append_tokens(TOKEN)
            generator.get_logits()

        return timed_swap(use, token)

    def _load(self, path: str) -> None:
        if path not in self._loaded:
            self._adapters.load(path, path)
            self._loaded.add(path)
