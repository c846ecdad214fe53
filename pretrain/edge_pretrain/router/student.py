"""The student: pooled rows, a map and a bias, L2-normalised; and its int8 file."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from edge_runtime import _core

INT8_MAX = 127


@dataclass(frozen=True)
class StudentShape:
    """width: of a row. order: the longest n-gram, 1 for tokens alone. ngram_rows: buckets of all n-grams."""

    vocab_size: int
    dim: int
    width: int
    order: int
    ngram_rows: int


class Student(nn.Module):
    """What the file computes, in float. The weight of a row in the mean is its length: pooling is learned with it."""

    def __init__(self, shape: StudentShape, generator: torch.Generator) -> None:
        super().__init__()
        self.shape = shape
        rows = shape.vocab_size + shape.ngram_rows
        self.rows = nn.EmbeddingBag(rows, shape.width, mode="mean")
        self.map = nn.Parameter(torch.empty(shape.width, shape.dim))
        self.bias = nn.Parameter(torch.zeros(shape.dim))
        with torch.no_grad():
            self.rows.weight.normal_(std=shape.width**-0.5, generator=generator)
            self.map.normal_(std=shape.width**-0.5, generator=generator)

    def forward(self, rows: Tensor, starts: Tensor) -> Tensor:
        """f32 [texts, dim]: see Features.batch."""
        return F.normalize(self.rows(rows, starts) @ self.map + self.bias, dim=1)

    @torch.no_grad()
    def write(self, path: Path) -> None:
        """Writes router/static.safetensors (docs/bundle-format.md), its rows rounded to int8."""
        values, scales = quantized(self.rows.weight.numpy())
        cut = self.shape.vocab_size
        _core.write_static_embedder(
            str(path),
            self.shape.order,
            values[:cut],
            scales[:cut],
            values[cut:],
            scales[cut:],
            self.map.numpy(),
            self.bias.numpy(),
        )


def quantized(rows: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """int8 rows and a scale f32 for each, so that scale * row is nearest to what it was."""
    scales = np.abs(rows).max(axis=1) / np.float32(INT8_MAX)
    safe = np.where(scales > 0, scales, 1).astype(np.float32)
    return np.rint(rows / safe[:, None]).astype(np.int8), scales.astype(np.float32)
