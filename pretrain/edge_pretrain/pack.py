"""Documents of one leaf packed into training sequences, stored as ragged rows that are mapped, not read.

A stored row is the leaf's number followed by the tokens of whole documents, each opened by BOS and closed by
EOS (Pouransari et al. 2025, section 3: the leaf is the first token and is split off by the loader). The first
token of a document is stored as its complement, ~token, since not every tokenizer has a BOS to tell it by.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from mmap_ninja import RaggedMmap
from numpy.typing import NDArray

from edge_pretrain.sequences import Sequences
from edge_pretrain.tokenizer import EOS_ID, OWN_MARKERS, Markers

STORED = 2  # the version of a row's layout


def pack(
    documents: Sequence[Sequence[int]],
    leaves: NDArray[np.int64],
    length: int,
    seed: int,
    markers: Markers = OWN_MARKERS,
) -> list[NDArray[np.int32]]:
    """Rows of at most 1 + `length` i32, in seeded order.

    documents: token ids without BOS and EOS. leaves: i64 [documents]. A document longer than a sequence is cut
    into several, each opened alike.
    """
    random = np.random.default_rng([seed, 201])
    rows: list[NDArray[np.int32]] = []
    for leaf in np.unique(leaves):
        bins: list[list[int]] = []
        pieces = [
            piece
            for index in random.permutation(np.flatnonzero(leaves == leaf))
            for piece in _pieces(documents[index], length, markers)
        ]
        for piece in pieces:
            # First fit leaves little to fill; a leaf has few sequences, so looking through all is cheap.
            place = next((b for b in bins if len(b) + len(piece) <= length), None)
            if place is None:
                bins.append(list(piece))
            else:
                place.extend(piece)
        rows += [np.array([leaf, *tokens], dtype=np.int32) for tokens in bins]
    return [rows[i] for i in random.permutation(len(rows))]


def _pieces(document: Sequence[int], length: int, markers: Markers) -> list[list[int]]:
    whole, width = [*document, *markers.closing], length - len(markers.opening)
    cut = ([*markers.opening, *whole[start : start + width]] for start in range(0, len(whole), width))
    return [[~piece[0], *piece[1:]] for piece in cut]


def write_rows(directory: Path, rows: Sequence[NDArray[np.int32]]) -> None:
    """Store rows as a RaggedMmap."""
    RaggedMmap.from_lists(directory, list(rows), dtype=np.int32)


def read_sequences(directory: Path, length: int) -> Sequences:
    """Load rows: the leaf split off, documents numbered, the end filled up."""
    rows = RaggedMmap(directory)
    tokens = np.full((len(rows), length), EOS_ID, dtype=np.int32)
    documents = np.full((len(rows), length), -1, dtype=np.int32)
    leaves = np.empty(len(rows), dtype=np.int64)
    for index in range(len(rows)):
        row = rows[index]
        size = len(row) - 1
        leaves[index] = row[0]
        first = row[1:] < 0
        tokens[index, :size] = np.where(first, ~row[1:], row[1:])
        documents[index, :size] = np.cumsum(first) - 1
    return Sequences(tokens, documents, leaves)
