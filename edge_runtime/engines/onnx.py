"""ONNX Runtime: the portable program, on any platform that it runs on."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

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
from edge_runtime.errors import BadFormatError, UnsupportedError

try:
    import onnxruntime
except ImportError as error:
    raise UnsupportedError(
        f"the ONNX engine is not usable here ({error}): pip install 'edge-runtime[onnx]'"
    ) from None


SPINNING = "0"
"""Its threads would go on spinning after a call, on the cores that fetch and sample. "1" is ONNX Runtime's default."""


def _session(path: Path, threads: int) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.add_session_config_entry("session.intra_op.allow_spinning", SPINNING)
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its own classes share no base
        raise BadFormatError(f"{path}: not a usable program ({' '.join(str(error).split())})") from None


class OnnxEngine:
    """See `engines.Engine`."""

    def __init__(self, bundle: Bundle, threads: int, flavour: str) -> None:
        self._bundle, self._spec = bundle, program_of(bundle, "onnx", flavour)
        path = bundle.path_of(self._spec.path)
        self._session = _session(path, threads)
        if "position" not in [one.name for one in self._session.get_inputs()]:
            raise UnsupportedError(f"{path}: a program of an older exporter: export the bundle again")

    @property
    def kv_bytes(self) -> int:
        return f32_kv_bytes(self._bundle.manifest.anchor)

    def new_context(self) -> ProgramContext:
        anchor, session = self._bundle.manifest.anchor, self._session
        shape = (1, anchor.kv_heads, anchor.context_length, anchor.head_dim)
        names = [f"{kind}_{layer}" for layer in range(anchor.layers) for kind in ("k", "v")]
        value = onnxruntime.OrtValue.ortvalue_from_numpy
        caches = {name: value(np.zeros(shape, np.float32)) for name in names}

        def step(
            tokens: npt.NDArray[np.int64], position: int, memory: list[Array]
        ) -> npt.NDArray[np.float32]:
            # A binding of its own for each call: it holds the lease's arrays for as long as it lives.
            binding = session.io_binding()
            feeds = {"tokens": tokens, "position": np.array([position], np.int64)}
            feeds |= {f"memory_{index}": array for index, array in enumerate(memory)}
            for name, array in feeds.items():
                binding.bind_ortvalue_input(name, value(array))
            binding.bind_output("logits")
            for name, cache in caches.items():
                # Past and present are one buffer, so that the program writes what is new and copies nothing.
                binding.bind_ortvalue_input(name, cache)
                binding.bind_ortvalue_output(f"present_{name}", cache)
            session.run_with_iobinding(binding)
            return cast(npt.NDArray[np.float32], binding.get_outputs()[0].numpy()[0])

        # A bank may have been stored anew, in another dtype than that of the program's inputs.
        half = any(one.type == "tensor(float16)" for one in session.get_inputs())
        inputs = MemoryInputs(self._bundle, in_place=("f32", "f16") if half else ("f32",))
        return ProgramContext(self._bundle, self._spec, inputs.of, step, self.kv_bytes)


def open_engine(bundle: Bundle, threads: int, flavour: str | None = None) -> OnnxEngine:
    """See `engines.open_engine`."""
    return OnnxEngine(bundle, threads, flavour or "portable")


def open_embedder(bundle: Bundle, name: str, threads: int) -> WindowedEmbedder:
    """See `embedders.open_embedder`."""
    router = bundle.manifest.router
    assert router is not None
    spec = router.embedder(name)
    session = _session(bundle.path_of(spec.path), threads)

    def encode(tokens: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        found = session.run(None, {"token_ids": tokens, "mask": np.ones_like(tokens)})[0][0]
        return cast(npt.NDArray[np.float32], found)

    return WindowedEmbedder(bundle, spec, encode)
