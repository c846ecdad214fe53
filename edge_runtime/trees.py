"""A tree taken apart, to be written with other children: for whoever changes one. Routing reads `_core.Tree`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file

from edge_runtime import _core
from edge_runtime.errors import InvalidArgumentError

MOST_BYTES = 1 << 28


@dataclass(frozen=True)
class TreeArrays:
    """centroids[l - 1]: f32 [fanout^l, dim]; documents[l - 1]: i32 [fanout^l], 0 where a cluster is empty."""

    centroids: list[npt.NDArray[np.float32]]
    documents: list[npt.NDArray[np.int32]]

    @classmethod
    def read(cls, path: Path) -> TreeArrays:
        """REQUIRES a file that `_core.Tree` opens."""
        tensors = load_file(path)
        levels = range(1, len(tensors) // 2 + 1)
        return cls(
            [tensors[f"centroids.{level}"] for level in levels],
            [tensors[f"documents.{level}"] for level in levels],
        )

    def deepened(self, fanout: int) -> TreeArrays:
        """One level more, of empty clusters."""
        nodes, dim = fanout ** (len(self.centroids) + 1), self.centroids[0].shape[1]
        if nodes * dim * 4 > MOST_BYTES:
            raise InvalidArgumentError(
                f"a personal level would have {nodes:,} nodes: this tree is too deep for one; teach with --into leaf"
            )
        empty = np.zeros((nodes, dim), np.float32)
        return TreeArrays([*self.centroids, empty], [*self.documents, np.zeros(nodes, np.int32)])

    def write(self, path: Path, fanout: int) -> None:
        _core.write_tree(str(path), fanout, self.centroids, self.documents)
