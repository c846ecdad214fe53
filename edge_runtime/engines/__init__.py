"""Engines run a bundle's programs; one file an engine. What the rest of the runtime asks of one stands here."""

from __future__ import annotations

import importlib
from typing import Protocol

import numpy as np
import numpy.typing as npt

from edge_runtime.bank_header import KINDS
from edge_runtime.bundle import Bundle
from edge_runtime.errors import ContextOverflowError, UnsupportedError
from edge_runtime.manifest import ProgramSpec
from edge_runtime.router import Embedder

ENGINES = ("native", "executorch", "onnx", "coreml")
# Of programs, engine/flavour: the kinds of memory that each reads.
MEMORY_KINDS = {
    "native/paged": ("ffn",),
    "executorch/paged": ("ffn",),
    "executorch/portable": KINDS,
    "onnx/portable": KINDS,
    "coreml/portable": ("ffn",),
    "coreml/stateful": ("ffn",),
}


class Context(Protocol):
    """One conversation's KV cache. Not thread-safe."""

    @property
    def position(self) -> int:
        """Tokens in the KV cache."""
        ...

    @property
    def context_length(self) -> int:
        """Tokens that the KV cache can hold."""
        ...

    @property
    def kv_bytes(self) -> int:
        """Bytes of the KV cache, full."""
        ...

    def forward(self, tokens: npt.NDArray[np.int64], memory: int) -> npt.NDArray[np.float32]:
        """Appends tokens i64 [T], T >= 1, and returns the logits f32 [vocab_size] of the last.

        memory: the handle of a lease, 0 for none. The call waits for each layer's memory where it is read.

        Raises:
            ContextOverflowError: the tokens do not fit; nothing was appended.
            EdgeRuntimeError: reading memory failed; the cache is as it was before the call.
        """
        ...

    @property
    def cut_is_free(self) -> bool:
        """Whether logits are bitwise the same however the tokens before were cut into calls."""
        ...

    def rewind(self, position: int) -> None:
        """Forgets the tokens from `position` on. REQUIRES position <= self.position."""
        ...

    def reset(self) -> None:
        """Empties the KV cache."""
        ...


class Engine(Protocol):
    """An opened program, shared by its contexts."""

    @property
    def kv_bytes(self) -> int:
        """Bytes of a context's KV cache, full."""
        ...

    def new_context(self) -> Context:
        """A context with an empty KV cache of its own; weights are shared."""
        ...


class EngineModule(Protocol):
    """What a file of this package offers."""

    def open_engine(self, bundle: Bundle, threads: int, flavour: str = ...) -> Engine: ...

    def open_embedder(self, bundle: Bundle, name: str, threads: int) -> Embedder: ...


def check_length(count: int, position: int, context_length: int) -> None:
    """Raises ContextOverflowError where `count` tokens are none, or do not fit behind `position` others."""
    if count == 0 or position + count > context_length:
        raise ContextOverflowError(
            f"{count} tokens after {position}: a call takes at least one, and the context ends at "
            f"{context_length}: shorten the prompt or reset the session"
        )


def check_memory_kind(kind: str, program: str) -> None:
    """Raises UnsupportedError where a program, engine/flavour, is unknown or does not read memory of that kind."""
    if program not in MEMORY_KINDS:
        raise UnsupportedError(f"a program {program}: this edge-runtime runs {', '.join(MEMORY_KINDS)}")
    if kind not in MEMORY_KINDS[program]:
        able = ", ".join(name for name, kinds in MEMORY_KINDS.items() if kind in kinds)
        raise UnsupportedError(
            f"memory of the kind {kind}: {program} reads {', '.join(MEMORY_KINDS[program])}; "
            f"it can be exported for and read by {able}"
        )


def program_of(bundle: Bundle, engine: str, flavour: str) -> ProgramSpec:
    """The bundle's program. UnsupportedError where it has none, or one that does not read the bundle's memory."""
    spec, memory = bundle.program(engine, flavour), bundle.manifest.memory
    if memory is not None:
        try:
            check_memory_kind(memory.kind, f"{engine}/{flavour}")
        except UnsupportedError as error:
            raise UnsupportedError(f"{bundle.directory}: {error}") from None
    return spec


def load(engine: str) -> EngineModule:
    """The engine's module; importing it loads its libraries.

    Raises:
        UnsupportedError: no engine of that name, or it is not built or installed here.
    """
    if engine not in ENGINES:
        raise UnsupportedError(f"no engine {engine!r}; there are {', '.join(ENGINES)}")
    module: EngineModule = importlib.import_module(f"edge_runtime.engines.{engine}")
    return module


def open_engine(bundle: Bundle, threads: int, engine: str | None = None) -> Engine:
    """Opens the bundle's program for an engine, by default that of its first program.

    engine: a name, or name/flavour.

    threads: of the engine, >= 1.

    Raises:
        UnsupportedError: the bundle has no program for it, or it is not installed.
        BadFormatError: the program is damaged.
    """
    programs = bundle.manifest.programs
    name, _, flavour = (engine or (programs[0].engine if programs else ENGINES[0])).partition("/")
    module = load(name)
    return module.open_engine(bundle, threads, flavour) if flavour else module.open_engine(bundle, threads)
