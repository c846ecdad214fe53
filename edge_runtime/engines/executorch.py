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
from edge_runtime.engines import program_of
from edge_runtime.engines.portable import (
    Array,
    MemoryInputs,
    ProgramContext,
    WindowedEmbedder,
    f32_kv_bytes,
)
from edge_runtime.errors import UnsupportedError

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


class ExecuTorchEngine:
    """See `engines.Engine`."""

    def __init__(self, bundle: Bundle, threads: int, flavour: str) -> None:
        self._bundle, self._spec = bundle, program_of(bundle, "executorch", flavour)
        if self._spec.delegate == "coreml" and sys.platform != "darwin":
            raise UnsupportedError(
                f"{bundle.path_of(self._spec.path)}: its delegate is Core ML, which macOS and iOS have: take another "
                "program of the bundle, or export it with --delegate xnnpack"
            )
        memory = bundle.manifest.memory
        for level in memory.levels if memory else ():
            if level.dtype not in self._spec.bank_dtypes:
                raise UnsupportedError(
                    f"{bundle.path_of(self._spec.path)}: it reads memory of {', '.join(self._spec.bank_dtypes)}, "
                    f"but level {level.level} is {level.dtype}: export the bundle again"
                )
        self._program = _executorch.Program(str(bundle.path_of(self._spec.path)), threads)

    @property
    def kv_bytes(self) -> int:
        return f32_kv_bytes(self._bundle.manifest.anchor)

    def new_context(self) -> ProgramContext:
        """The KV cache is the loaded method's own state."""
        method = self._program.load_method(self._spec.method)

        def step(
            tokens: npt.NDArray[np.int64], position: int, memory: list[Array]
        ) -> npt.NDArray[np.float32]:
            logits = method.execute([tokens, np.array([position], np.int64), *memory])[0]
            return cast(npt.NDArray[np.float32], logits[0])

        memory = _handle_input
        if self._spec.flavour == "portable":
            memory = MemoryInputs(self._bundle, in_place=("f32",), fixed_rows=True).of
        return ProgramContext(self._bundle, self._spec, memory, step, self.kv_bytes)


def _handle_input(handle: int) -> list[Array]:
    """What a paged program takes: it reads the lease's memory itself."""
    return [np.array([handle], np.int64)]


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
