"""The native engine: the core's own decoder over anchor.native.safetensors; it needs neither torch nor ExecuTorch."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import NoReturn

import numpy as np
import numpy.typing as npt

from edge_runtime import _core
from edge_runtime.bundle import Bundle
from edge_runtime.engines import check_length, program_of
from edge_runtime.errors import UnsupportedError


class NativeContext:
    """See `engines.Context`."""

    def __init__(self, context: _core.NativeContext, context_length: int, kv_bytes: int) -> None:
        self._context, self._context_length, self._kv_bytes = context, context_length, kv_bytes

    @property
    def position(self) -> int:
        return self._context.position

    @property
    def context_length(self) -> int:
        return self._context_length

    @property
    def kv_bytes(self) -> int:
        return self._kv_bytes

    def forward(self, tokens: npt.NDArray[np.int64], memory: int) -> npt.NDArray[np.float32]:
        check_length(len(tokens), self._context.position, self._context_length)
        return self._context.forward(np.ascontiguousarray(tokens, np.int64), memory)

    @property
    def cut_is_free(self) -> bool:
        return True

    def rewind(self, position: int) -> None:
        self._context.rewind(position)

    def reset(self) -> None:
        self._context.reset()


class NativeEngine:
    """See `engines.Engine`."""

    def __init__(self, bundle: Bundle, threads: int, flavour: str) -> None:
        spec = program_of(bundle, "native", flavour)
        memory, anchor = bundle.manifest.memory, bundle.manifest.anchor
        self._context_length = anchor.context_length
        self._model = _core.NativeModel(
            str(bundle.path_of(spec.path)),
            json.dumps(asdict(anchor)),
            memory.layers if memory else (),
            threads,
        )

    @property
    def kv_bytes(self) -> int:
        return self._model.kv_bytes

    def new_context(self) -> NativeContext:
        return NativeContext(self._model.new_context(), self._context_length, self.kv_bytes)


def open_engine(bundle: Bundle, threads: int, flavour: str = "paged") -> NativeEngine:
    """See `engines.open_engine`."""
    return NativeEngine(bundle, threads, flavour)


def open_embedder(bundle: Bundle, name: str, threads: int) -> NoReturn:
    """Embedders that this engine would run do not exist: `static` needs no engine."""
    raise UnsupportedError(
        f"{bundle.directory}: the embedder {name!r} is a program of the native engine, which runs none: "
        "take the router 'static'"
    )
