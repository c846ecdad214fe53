"""A bundle's Core ML package as an engine that runs anywhere, slowly: `edge_export.mil` is what answers."""

from __future__ import annotations

from typing import cast

import numpy as np
import numpy.typing as npt

from edge_export.mil import Package
from edge_runtime.bundle import Bundle
from edge_runtime.engines.portable import Array, MemoryInputs, MemoryStates, ProgramContext, f32_kv_bytes


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
