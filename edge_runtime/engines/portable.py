"""What engines share that run a program call by call (docs/bundle-format.md, Programs): memory as inputs, one a level,
the context, the router's encoder."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from edge_runtime import _core
from edge_runtime.bank import LevelReader, dequantize
from edge_runtime.bank_header import ELEMENT_BITS, LevelSpec
from edge_runtime.bundle import Bundle
from edge_runtime.engines import check_length
from edge_runtime.errors import BadFormatError
from edge_runtime.manifest import Anchor, EmbedderSpec, ProgramSpec
from edge_runtime.text import read_tokenizer

Array = npt.NDArray[Any]
"""f32 or f16; i64 of a handle."""
TYPES: dict[str, type[np.float32] | type[np.float16]] = {"f32": np.float32, "f16": np.float16}
"""Of memory inputs, by the bank's dtype; banks of other dtypes are given as f32."""
F32_BYTES = 4


class MemoryInputs:
    """The memory inputs of a program, in the order of the manifest's levels. Not thread-safe.

    Blocks of the dtypes `in_place` are passed as they lie. Others are dequantised once a lease, into memory that no
    budget covers. fixed_rows: where there is no block, zeros of the level's shape take its place, else r is 0; of KV
    memory one more array says which levels have a block, f32 [levels], 1 or 0: zeros would be keys.
    """

    def __init__(
        self, bundle: Bundle, in_place: Sequence[str] = tuple(TYPES), fixed_rows: bool = False
    ) -> None:
        memory = bundle.manifest.memory
        self._in_place = in_place
        self._tells = fixed_rows and memory is not None and memory.kind == "kv"
        self._specs: list[LevelSpec] = []
        self._none: list[Array] = []
        for level in memory.levels if memory else ():
            spec = LevelReader(bundle.path_of(level.files[0])).spec
            self._specs.append(spec)
            layers, parts, rows, width = spec.block_shape
            shape = (layers, parts, rows if fixed_rows else 0, width)
            dtype = TYPES[spec.dtype] if spec.dtype in in_place else np.float32
            self._none.append(np.zeros(shape, dtype))
        self._handle, self._converted = 0, dict[int, Array]()

    def of(self, handle: int) -> list[Array]:
        """Arrays [layers, parts, r, width]; r is 0 where the lease has no block. They keep the lease: drop them after
        the call.

        Raises:
            EdgeRuntimeError: the lease is gone, or reading it failed.
        """
        arrays = list(self._none)
        if handle == 0:
            return [*arrays, np.zeros(len(arrays), np.float32)] if self._tells else arrays
        if handle != self._handle:
            self._handle, self._converted = handle, {}
        blocks = {level: block for level, _, block in _core.leased_blocks(handle)}
        for index, spec in enumerate(self._specs):
            block = blocks.get(spec.level)
            if block is None:
                continue
            if spec.dtype in self._in_place:
                arrays[index] = self._rows(spec, block).view(TYPES[spec.dtype]).reshape(spec.block_shape)
            else:
                if index not in self._converted:
                    scales = block[: spec.layers * spec.layer_scale_bytes].tobytes()
                    values = dequantize(spec.dtype, self._rows(spec, block), scales, spec.block_shape[-1])
                    self._converted[index] = values.reshape(spec.block_shape)
                arrays[index] = self._converted[index]
        if self._tells:
            there = [spec.level in blocks for spec in self._specs]
            arrays.append(np.array(there, np.float32))
        return arrays

    @staticmethod
    def _rows(spec: LevelSpec, block: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """The weights without scales and padding; a view, unless layers end in padding."""
        body = block[spec.scale_bytes : spec.scale_bytes + spec.layers * spec.layer_bytes]
        used = math.prod(spec.block_shape[1:]) * ELEMENT_BITS[spec.dtype] // 8
        return np.ascontiguousarray(body.reshape(spec.layers, -1)[:, :used]).reshape(-1)


class MemoryStates:
    """Memory that a context of a stateful program holds, states `memory_<i>`: written once a lease. Not thread-safe.

    write: of a state by name, f16 [layers, 3, r, d]; states are zeros to begin with, which add nothing.
    """

    def __init__(self, bundle: Bundle, write: Callable[[str, npt.NDArray[np.float16]], None]) -> None:
        self._inputs, self._write = MemoryInputs(bundle, in_place=("f16",), fixed_rows=True), write
        self._held: int | None = 0

    def of(self, handle: int) -> list[Array]:
        """No inputs: the states hold the lease's memory when it returns. Raises EdgeRuntimeError as `MemoryInputs`."""
        if handle != self._held:
            arrays = self._inputs.of(handle)
            # Until all are written they hold no lease's.
            self._held = None
            for index, array in enumerate(arrays):
                self._write(f"memory_{index}", array.astype(np.float16, copy=False))
            self._held = handle
        return []


def f32_kv_bytes(anchor: Anchor) -> int:
    """Bytes of a KV cache in f32, full."""
    return 2 * F32_BYTES * anchor.layers * anchor.kv_heads * anchor.head_dim * anchor.context_length


class ProgramContext:
    """See `engines.Context`; `step` appends tokens i64 [1, T] at a position and gives f32 [vocab_size].

    memory: what `step` is given for a lease's handle.
    """

    def __init__(
        self,
        bundle: Bundle,
        spec: ProgramSpec,
        memory: Callable[[int], list[Array]],
        step: Callable[[npt.NDArray[np.int64], int, list[Array]], npt.NDArray[np.float32]],
        kv_bytes: int,
    ) -> None:
        self._step, self._max_prefill, self._memory = step, spec.max_prefill, memory
        self._context_length, self._position = bundle.manifest.anchor.context_length, 0
        self._kv_bytes = kv_bytes

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
        position, arrays = self._position, self._memory(memory)
        for start in range(0, len(tokens), self._max_prefill):
            chunk = np.ascontiguousarray(tokens[None, start : start + self._max_prefill], np.int64)
            logits = self._step(chunk, position, arrays)
            position += chunk.shape[1]
        # Only now: a call that failed is overwritten by the next one from the same position.
        self._position = position
        return logits

    @property
    def cut_is_free(self) -> bool:
        return False

    def rewind(self, position: int) -> None:
        # What lies beyond is overwritten by the next call.
        self._position = position

    def reset(self) -> None:
        self._position = 0


class WindowedEmbedder:
    """A sentence encoder: see `router.Embedder`. `encode` takes token ids i64 [1, T] and gives f32 [dim]."""

    def __init__(
        self,
        bundle: Bundle,
        spec: EmbedderSpec,
        encode: Callable[[npt.NDArray[np.int64]], npt.NDArray[np.float32]],
    ) -> None:
        path = bundle.path_of(spec.tokenizer)
        assert spec.max_tokens is not None  # the manifest was validated
        self._encode, self._tokenizer = encode, read_tokenizer(path)
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._cls, self._sep = (_special(path.name, self._tokenizer, token) for token in ("[CLS]", "[SEP]"))
        self._width = spec.max_tokens - 2

    def embed(self, text: str) -> npt.NDArray[np.float32]:
        """f32 [dim]. A text longer than a window: the mean of its windows' embeddings, renormalised."""
        ids = self._tokenizer.encode(text, add_special_tokens=False).ids
        windows = [ids[start : start + self._width] for start in range(0, len(ids), self._width)] or [[]]
        framed = (np.array([[self._cls, *window, self._sep]], np.int64) for window in windows)
        total = np.sum([self._encode(window) for window in framed], axis=0)
        unit: npt.NDArray[np.float32] = total / np.linalg.norm(total)
        return unit


def _special(name: str, tokenizer: Tokenizer, token: str) -> int:
    found: int | None = tokenizer.token_to_id(token)
    if found is None:
        raise BadFormatError(f"{name}: it has no [CLS] and [SEP]: take the embedder's own tokenizer")
    return found
