"""ONNX Runtime: the portable program, on any platform that it runs on."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from edge_runtime.bundle import Bundle
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
        self._bundle, self._spec = bundle, bundle.program("onnx", flavour)
        self._session = _session(bundle.path_of(self._spec.path), threads)

    @property
    def kv_bytes(self) -> int:
        return f32_kv_bytes(self._bundle.manifest.anchor)

    def new_context(self) -> ProgramContext:
        anchor, session = self._bundle.manifest.anchor, self._session
        shape = (1, anchor.context_length, anchor.kv_heads, anchor.head_dim)
        names = [f"{kind}_{layer}" for layer in range(anchor.layers) for kind in ("k", "v")]
        caches = {name: np.zeros(shape, np.float32) for name in names}

        def step(
            tokens: npt.NDArray[np.int64], position: int, memory: list[Array]
        ) -> npt.NDArray[np.float32]:
            # The tokens so far lie at the head of each cache: a view, and the program returns what comes behind.
            feeds = {name: cache[:, :position] for name, cache in caches.items()}
            feeds |= {f"memory_{index}": array for index, array in enumerate(memory)}
            logits, *new = session.run(
                ["logits", *(f"new_{name}" for name in names)], feeds | {"tokens": tokens}
            )
            for name, values in zip(names, new, strict=True):
                caches[name][:, position : position + tokens.shape[1]] = values
            return cast(npt.NDArray[np.float32], logits[0])

        return ProgramContext(self._bundle, self._spec, MemoryInputs(self._bundle).of, step, self.kv_bytes)


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
