"""A bundle's Core ML packages as engines that run anywhere, slowly: `edge_export.mil` is what answers."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt

from edge_export.mil import Package
from edge_runtime.bundle import Bundle
from edge_runtime.engines.portable import Array, MemoryInputs, MemoryStates, ProgramContext, f32_kv_bytes


def interpreted(bundle: Bundle, engine: str, flavour: str) -> InterpretedEngine | InterpretedDelegate:
    """What stands in for that program; it must be Core ML's, or ExecuTorch's with Core ML as its delegate."""
    return InterpretedEngine(bundle, flavour) if engine == "coreml" else InterpretedDelegate(bundle)


class InterpretedEngine:
    """See `engines.Engine`."""

    def __init__(self, bundle: Bundle, flavour: str) -> None:
        self._bundle, self._spec = bundle, bundle.program("coreml", flavour)

    @property
    def kv_bytes(self) -> int:
        return f32_kv_bytes(self._bundle.manifest.anchor) // 2

    def new_context(self) -> ProgramContext:
        package = Package(self._bundle.path_of(self._spec.path))

        def step(
            tokens: npt.NDArray[np.int64], position: int, memory: list[Array]
        ) -> npt.NDArray[np.float32]:
            count = tokens.shape[1]
            found = package.run(
                "decode" if count == 1 else "prefill",
                tokens=tokens.astype(np.int32),
                positions=np.arange(position, position + count, dtype=np.int32),
                **{f"memory_{index}": array.astype(np.float16) for index, array in enumerate(memory)},
            )
            return cast(npt.NDArray[np.float32], found["logits"][0].astype(np.float32))

        if self._spec.flavour == "stateful":
            memory = MemoryStates(self._bundle, package.states.__setitem__).of
        else:
            memory = MemoryInputs(self._bundle, in_place=("f16",), fixed_rows=True).of
        return ProgramContext(self._bundle, self._spec, memory, step, self.kv_bytes)


class InterpretedDelegate:
    """An ExecuTorch program that is one Core ML delegate, which takes a token a call; see `engines.Engine`."""

    def __init__(self, bundle: Bundle) -> None:
        from edge_export.executorch_coreml import embedded_package

        self._bundle, self._spec = bundle, bundle.program("executorch", "portable")
        self._scratch = tempfile.TemporaryDirectory()
        self._package = embedded_package(
            bundle.path_of(self._spec.path), Path(self._scratch.name) / "delegate"
        )

    @property
    def kv_bytes(self) -> int:
        return f32_kv_bytes(self._bundle.manifest.anchor) // 2

    def new_context(self) -> ProgramContext:
        package = Package(self._package)

        def step(
            tokens: npt.NDArray[np.int64], position: int, memory: list[Array]
        ) -> npt.NDArray[np.float32]:
            found = package.run(
                "main",
                tokens=tokens.astype(np.int32),
                position=np.array([position], np.int32),
                **{f"memory_{index}": array for index, array in enumerate(memory)},
            )
            (logits,) = found.values()
            return cast(npt.NDArray[np.float32], logits[0].astype(np.float32))

        memory = MemoryInputs(self._bundle, in_place=("f32",), fixed_rows=True).of
        return ProgramContext(self._bundle, self._spec, memory, step, self.kv_bytes)
