"""The parts of a synthetic bundle that are streamed: the native engine's weights and a router without an engine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from edge_runtime import _core

ROUTER_PATH = "router/static.safetensors"
CHUNK = 1 << 22  # values at once: a whole matrix of a large anchor would be gigabytes in f32
TOKEN_DIM, NGRAM_ROWS = 64, 4096


def write_random_native(path: Path, anchor: dict[str, Any], dtype: str, seed: int) -> None:
    """anchor: the manifest's object. Matrices of random values that keep a stream's size; gains of one."""
    writer = _core.NativeWriter(str(path), json.dumps(anchor), dtype)
    random = np.random.default_rng([seed, 2])
    for _, shape in writer.tensors:
        rows, columns = int(np.prod(shape[:-1])), shape[-1]
        step = max(1, CHUNK // columns)
        for start in range(0, rows, step):
            size = (min(step, rows - start), columns)
            if len(shape) == 1:
                writer.append(np.ones(size, np.float32))
            else:
                values = random.standard_normal(size, np.float32)
                values *= np.float32(columns**-0.5)
                writer.append(values)
    writer.finish()


def write_random_router(path: Path, vocab_size: int, dim: int, seed: int) -> None:
    """A static embedder: its routes are those of no text in particular, and spread over the tree."""
    random = np.random.default_rng([seed, 3])

    def table(rows: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        values = random.integers(-127, 128, (rows, TOKEN_DIM)).astype(np.int8)
        return values, np.full(rows, 0.01, np.float32)

    tokens, token_scales = table(vocab_size)
    ngrams, ngram_scales = table(NGRAM_ROWS)
    _core.write_static_embedder(
        str(path),
        2,
        tokens,
        token_scales,
        ngrams,
        ngram_scales,
        random.standard_normal((TOKEN_DIM, dim)).astype(np.float32),
        np.zeros(dim, np.float32),
    )
