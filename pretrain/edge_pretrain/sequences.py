"""The training sequences as the trainer reads them; a file of its own because packing needs no torch."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Sequences:
    """Packed training sequences.

    tokens: i32 [n, T]. documents: i32 [n, T], equal within a document, -1 where the sequence is filled up.
    leaves: i64 [n], the tree's leaf of each sequence's documents.
    """

    tokens: NDArray[np.int32]
    documents: NDArray[np.int32]
    leaves: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.tokens)
