"""The training sequences as the trainer reads them; a file of its own because packing needs no torch."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int32]


class Sequences(Protocol):
    """Packed training sequences of `length` tokens."""

    @property
    def leaves(self) -> NDArray[np.int64]:
        """i64 [n]: the tree's leaf of each sequence's documents."""
        ...

    @property
    def length(self) -> int: ...
    def __len__(self) -> int: ...
    def batch(self, indices: NDArray[np.int64]) -> tuple[Rows, Rows]:
        """tokens and documents, i32 [B, length] each.

        documents: equal within a document, -1 where the sequence is filled up.
        """
        ...


@dataclass(frozen=True)
class ArraySequences:
    """`Sequences` in memory. tokens, documents: i32 [n, length]."""

    tokens: Rows
    documents: Rows
    leaves: NDArray[np.int64]

    @property
    def length(self) -> int:
        return int(self.tokens.shape[1])

    def __len__(self) -> int:
        return len(self.tokens)

    def batch(self, indices: NDArray[np.int64]) -> tuple[Rows, Rows]:
        return self.tokens[indices], self.documents[indices]
