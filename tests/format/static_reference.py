"""The static embedder in plain Python, from docs/bundle-format.md: for golden files and parity."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from bank_reference import Floats, pad

MASK = 2**64 - 1


def mix(x: int) -> int:
    x ^= x >> 33
    x = x * 0xFF51AFD7ED558CCD & MASK
    x ^= x >> 33
    x = x * 0xC4CEB9FE1A85EC53 & MASK
    return x ^ x >> 33


def bucket(ids: Sequence[int], rows: int) -> int:
    hashed = 0
    for token in ids:
        hashed = mix((hashed * 0x9E3779B97F4A7C15 + token + 1) & MASK)
    return hashed % rows


@dataclass(frozen=True)
class StaticFile:
    """tokens i8 [vocab_size, width], ngrams i8 [ngram_rows, width], with a scale a row; map [width, dim]; bias."""

    order: int
    tokens: npt.NDArray[np.int8]
    token_scales: Floats
    ngrams: npt.NDArray[np.int8]
    ngram_scales: Floats
    map: Floats
    bias: Floats

    def to_bytes(self) -> bytes:
        header: dict[str, Any] = {
            "__metadata__": {
                "format": "edge-runtime.static-embedder",
                "version": "1",
                "vocab_size": str(len(self.tokens)),
                "width": str(self.map.shape[0]),
                "dim": str(self.map.shape[1]),
                "order": str(self.order),
                "ngram_rows": str(len(self.ngrams)),
            }
        }
        tables = [("token_scales", "F32", self.token_scales), ("ngram_scales", "F32", self.ngram_scales)]
        tables += [("map", "F32", self.map), ("bias", "F32", self.bias)]
        tables += [("tokens", "I8", self.tokens), ("ngrams", "I8", self.ngrams)]  # type: ignore[list-item]
        data = b""
        for name, dtype, array in tables:
            if name.startswith("ngram") and self.order == 1:
                continue
            raw = array.astype("<f4" if dtype == "F32" else "i1").tobytes()
            offsets = [len(data), len(data) + len(raw)]
            header[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": offsets}
            data += raw
        text = pad(json.dumps(header, separators=(",", ":")).encode(), 8, b" ")
        return struct.pack("<Q", len(text)) + text + data

    def embed(self, ids: Sequence[int]) -> Floats:
        """In double precision, rounded at the end."""
        rows = [self.token_scales[token] * self.tokens[token].astype(np.float64) for token in ids]
        for length in range(2, self.order + 1):
            for start in range(len(ids) - length + 1):
                row = bucket(ids[start : start + length], len(self.ngrams))
                rows.append(self.ngram_scales[row] * self.ngrams[row].astype(np.float64))
        found = self.bias.astype(np.float64)
        if rows:
            found = found + np.mean(rows, axis=0) @ self.map.astype(np.float64)
        norm = math.sqrt(float(found @ found))
        return (found / norm if norm > 0 else found).astype(np.float32)
