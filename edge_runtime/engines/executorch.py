"""ExecuTorch, driven through its C++ interface by `_executorch`; the torch package is never imported."""

from __future__ import annotations

import ctypes
import importlib.util
import sys
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from edge_runtime.bundle import Bundle
from edge_runtime.engines import check_length
from edge_runtime.errors import BadFormatError, UnsupportedError
from edge_runtime.manifest import EmbedderSpec, ProgramSpec

try:
    from edge_runtime import _executorch
except ImportError as error:
    raise UnsupportedError(
        f"the ExecuTorch engine is not usable here ({error}): "
        "pip install 'executorch==1.4.1' 'torch==2.13.0', then install edge-runtime again"
    ) from None

F32_BYTES = 4


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

    def __init__(self, bundle: Bundle, threads: int) -> None:
        self._spec = bundle.program("executorch", "paged")
        memory, anchor = bundle.manifest.memory, bundle.manifest.anchor
        for level in memory.levels if memory else ():
            if level.dtype not in self._spec.bank_dtypes:
                raise UnsupportedError(
                    f"{bundle.path_of(self._spec.path)}: it reads memory of {', '.join(self._spec.bank_dtypes)}, "
                    f"but level {level.level} is {level.dtype}: export the bundle again"
                )
        self._context_length = anchor.context_length
        self._kv_bytes = (
            2 * F32_BYTES * anchor.layers * anchor.kv_heads * anchor.head_dim * anchor.context_length
        )
        self._program = _executorch.Program(str(bundle.path_of(self._spec.path)), threads)

    @property
    def kv_bytes(self) -> int:
        return self._kv_bytes

    def new_context(self) -> ExecuTorchContext:
        method = self._program.load_method(self._spec.method)
        return ExecuTorchContext(method, self._spec, self._context_length, self._kv_bytes)


class ExecuTorchEmbedder:
    """A sentence encoder: see `router.Embedder`. Thread-safe."""

    def __init__(self, bundle: Bundle, spec: EmbedderSpec, threads: int) -> None:
        path = bundle.path_of(spec.tokenizer)
        assert spec.max_tokens is not None  # the manifest was validated
        try:
            self._tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # the package raises plain Exception
            raise BadFormatError(f"{path}: not a tokenizer file ({error}): copy the bundle again") from None
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        cls, sep = (self._tokenizer.token_to_id(token) for token in ("[CLS]", "[SEP]"))
        if cls is None or sep is None:
            raise BadFormatError(f"{path}: it has no [CLS] and [SEP]: take the embedder's own tokenizer")
        self._cls, self._sep, self._width = cls, sep, spec.max_tokens - 2
        self._method = _executorch.Program(str(bundle.path_of(spec.path)), threads).load_method()

    def embed(self, text: str) -> npt.NDArray[np.float32]:
        """f32 [dim]. A text longer than a window: the mean of its windows' embeddings, renormalised."""
        ids = self._tokenizer.encode(text, add_special_tokens=False).ids
        windows = [ids[start : start + self._width] for start in range(0, len(ids), self._width)] or [[]]
        total = np.sum([self._embed([self._cls, *window, self._sep]) for window in windows], axis=0)
        unit: npt.NDArray[np.float32] = total / np.linalg.norm(total)
        return unit

    def _embed(self, window: list[int]) -> npt.NDArray[np.float32]:
        tokens = np.array([window], np.int64)
        return cast(npt.NDArray[np.float32], self._method.execute([tokens, np.ones_like(tokens)])[0][0])


def open_engine(bundle: Bundle, threads: int) -> ExecuTorchEngine:
    """See `engines.open_engine`."""
    return ExecuTorchEngine(bundle, threads)


def open_embedder(bundle: Bundle, name: str, threads: int) -> ExecuTorchEmbedder:
    """See `embedders.open_embedder`."""
    router = bundle.manifest.router
    assert router is not None
    return ExecuTorchEmbedder(bundle, router.embedder(name), threads)
