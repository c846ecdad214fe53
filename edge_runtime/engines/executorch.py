"""ExecuTorch, driven through its C++ interface by `_executorch`; the torch package is never imported."""

from __future__ import annotations

import ctypes
import importlib.util
import sys
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt

from edge_runtime.bundle import Bundle
from edge_runtime.engines import Context, check_length
from edge_runtime.engines.portable import (
    Array,
    MemoryInputs,
    PortableContext,
    WindowedEmbedder,
    f32_kv_bytes,
)
from edge_runtime.errors import UnsupportedError
from edge_runtime.manifest import ProgramSpec

try:
    from edge_runtime import _executorch
except ImportError as error:
    raise UnsupportedError(
        f"the ExecuTorch engine is not usable here ({error}): "
        "pip install 'executorch==1.4.1' 'torch==2.13.0', then install edge-runtime again"
    ) from None


def _load_attention_kernels() -> None:
    """Registers llama::custom_sdpa and llama::update_cache with the runtime that `_executorch` is linked to."""
    package = importlib.util.find_spec("executorch")
    folders = package.submodule_search_locations if package else None
    suffix = ".dylib" if sys.platform == "darwin" else ".so"
    for folder in folders or ():
        library = Path(folder) / "extension/llm/custom_ops" / f"libcustom_ops_aot_lib{suffix}"
        if library.is_file():
            ctypes.CDLL(str(library))
            return
    raise UnsupportedError(
        "executorch's libcustom_ops_aot_lib is missing: pip install --force-reinstall 'executorch==1.4.1'"
    )


_load_attention_kernels()


class ExecuTorchContext:
    """See `engines.Context`. The KV cache is the loaded method's own state."""

    def __init__(
        self, method: _executorch.Method, spec: ProgramSpec, context_length: int, kv_bytes: int
    ) -> None:
        self._method, self._max_prefill = method, spec.max_prefill
        self._context_length, self._kv_bytes = context_length, kv_bytes
        self._position = 0

    @property
    def position(self) -> int:
        return self._position

    @property
    def context_length(self) -> int:
        return self._context_length

    @property
    def kv_bytes(self) -> int:
        return self._kv_bytes

    def forward(self, tokens: npt.NDArray[np.int64], memory: int) -> npt.NDArray[np.float32]:
        check_length(len(tokens), self._position, self._context_length)
        handle = np.array([memory], np.int64)
        position = self._position
        logits = None
        for start in range(0, len(tokens), self._max_prefill):
            chunk = np.ascontiguousarray(tokens[None, start : start + self._max_prefill], np.int64)
            logits = self._method.execute([chunk, np.array([position], np.int64), handle])[0]
            position += chunk.shape[1]
        assert logits is not None
        # Only now: a call that failed is overwritten by the next one from the same position.
        self._position = position
        return cast(npt.NDArray[np.float32], logits[0])

    def reset(self) -> None:
        self._position = 0


class ExecuTorchEngine:
    """See `engines.Engine`."""

    def __init__(self, bundle: Bundle, threads: int, flavour: str) -> None:
        self._bundle, self._spec = bundle, bundle.program("executorch", flavour)
        memory, anchor = bundle.manifest.memory, bundle.manifest.anchor
        for level in memory.levels if memory else ():
            if level.dtype not in self._spec.bank_dtypes:
                raise UnsupportedError(
                    f"{bundle.path_of(self._spec.path)}: it reads memory of {', '.join(self._spec.bank_dtypes)}, "
                    f"but level {level.level} is {level.dtype}: export the bundle again"
                )
        self._context_length = anchor.context_length
        self._kv_bytes = f32_kv_bytes(anchor)
        self._program = _executorch.Program(str(bundle.path_of(self._spec.path)), threads)

    @property
    def kv_bytes(self) -> int:
        return self._kv_bytes

    def new_context(self) -> Context:
        method = self._program.load_method(self._spec.method)
        if self._spec.flavour == "portable":
            return self._portable_context(method)
        return ExecuTorchContext(method, self._spec, self._context_length, self._kv_bytes)

    def _portable_context(self, method: _executorch.Method) -> PortableContext:
        def step(
            tokens: npt.NDArray[np.int64], position: int, memory: list[Array]
        ) -> npt.NDArray[np.float32]:
            logits = method.execute([tokens, np.array([position], np.int64), *memory])[0]
            return cast(npt.NDArray[np.float32], logits[0])

        inputs = MemoryInputs(self._bundle, in_place=("f32",), fixed_rows=True)
        return PortableContext(self._bundle, self._spec, inputs, step, self.kv_bytes)


def open_engine(bundle: Bundle, threads: int, flavour: str | None = None) -> ExecuTorchEngine:
    """See `engines.open_engine`. The flavour is by default the one that the bundle names first."""
    there = [program.flavour for program in bundle.manifest.programs if program.engine == "executorch"]
    return ExecuTorchEngine(bundle, threads, flavour or (there or ["paged"])[0])


def open_embedder(bundle: Bundle, name: str, threads: int) -> WindowedEmbedder:
    """See `embedders.open_embedder`."""
    router = bundle.manifest.router
    assert router is not None
    spec = router.embedder(name)
    method = _executorch.Program(str(bundle.path_of(spec.path)), threads).load_method()

    def encode(tokens: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        return cast(npt.NDArray[np.float32], method.execute([tokens, np.ones_like(tokens)])[0][0])

    return WindowedEmbedder(bundle, spec, encode)
