"""Core ML through coremltools, on macOS 15 and newer. Untested: packages are checked by interpretation only."""

from __future__ import annotations

import platform
import sys
from typing import Any, NoReturn, cast

import numpy as np
import numpy.typing as npt

from edge_runtime.bundle import Bundle
from edge_runtime.engines import program_of
from edge_runtime.engines.portable import Array, MemoryInputs, MemoryStates, ProgramContext, f32_kv_bytes
from edge_runtime.errors import BadFormatError, UnsupportedError

if sys.platform != "darwin":
    raise UnsupportedError(
        f"the Core ML engine needs macOS or iOS, and this is {platform.system()}: take another engine of the bundle, "
        "or export it with --to native,executorch,onnx"
    )
try:
    import coremltools
except ImportError as error:
    raise UnsupportedError(
        f"the Core ML engine is not usable here ({error}): pip install 'coremltools==9.0'"
    ) from None


class CoremlEngine:
    """See `engines.Engine`."""

    def __init__(self, bundle: Bundle, flavour: str) -> None:
        self._bundle, self._spec = bundle, program_of(bundle, "coreml", flavour)
        path = bundle.path_of(self._spec.path)
        names = ("decode", "prefill") if self._spec.max_prefill > 1 else ("decode",)
        try:
            self._functions = {
                name: coremltools.models.MLModel(str(path), function_name=name) for name in names
            }
        except Exception as error:  # its own classes share no base
            raise BadFormatError(f"{path}: not a usable package ({' '.join(str(error).split())})") from None

    @property
    def kv_bytes(self) -> int:
        return f32_kv_bytes(self._bundle.manifest.anchor) // 2

    def new_context(self) -> ProgramContext:
        functions, state = self._functions, self._functions["decode"].make_state()

        def step(
            tokens: npt.NDArray[np.int64], position: int, memory: list[Array]
        ) -> npt.NDArray[np.float32]:
            count = tokens.shape[1]
            feeds: dict[str, Any] = {
                "tokens": tokens.astype(np.int32),
                "positions": np.arange(position, position + count, dtype=np.int32),
            }
            feeds |= {
                f"memory_{index}": array.astype(np.float16, copy=False) for index, array in enumerate(memory)
            }
            found = functions["decode" if count == 1 else "prefill"].predict(feeds, state)["logits"][0]
            return cast(npt.NDArray[np.float32], found.astype(np.float32))

        if self._spec.flavour == "stateful":
            memory = MemoryStates(self._bundle, state.write_state).of
        else:
            memory = MemoryInputs(self._bundle, in_place=("f16",), fixed_rows=True).of
        return ProgramContext(self._bundle, self._spec, memory, step, self.kv_bytes)


def open_engine(bundle: Bundle, threads: int, flavour: str | None = None) -> CoremlEngine:
    """See `engines.open_engine`. Core ML chooses its threads itself. The flavour is by default the one that the bundle
    names first."""
    there = [program.flavour for program in bundle.manifest.programs if program.engine == "coreml"]
    return CoremlEngine(bundle, flavour or (there or ["portable"])[0])


def open_embedder(bundle: Bundle, name: str, threads: int) -> NoReturn:
    """Embedders are not exported to Core ML."""
    raise UnsupportedError(
        f"{bundle.directory}: the embedder {name!r} is a program of Core ML, which this engine does not run: "
        "take the router 'static'"
    )
