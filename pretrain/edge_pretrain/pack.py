"""Documents of one leaf packed into training sequences, stored as ragged rows that are mapped, not read.

A stored row is the leaf's number followed by the tokens of whole documents, each opened by BOS and closed by
EOS (Pouransari et al. 2025, section 3: the leaf is the first token and is split off by the loader). The first
token of a document is stored as its complement, ~token, since not every tokenizer has a BOS to tell it by.
Rows lie in shards, leaf after leaf, as they were packed; order.npy says in which order they are read.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from pathlib import Path

import numpy as np
from mmap_ninja import RaggedMmap
from numpy.typing import NDArray

from edge_pretrain.sequences import Rows, Sequences
from edge_pretrain.tokenizer import EOS_ID, OWN_MARKERS, Markers

STORED = 3  # the version of this layout
SHARD = 16384  # rows


def write_sequences(
    directory: Path,
    documents: Sequence[Sequence[int]],
    leaves: NDArray[np.int64],
    length: int,
    seed: int,
    markers: Markers = OWN_MARKERS,
) -> None:
    """Pack into sequences of at most `length` tokens, to be read in an order that depends on the seed.

    documents: token ids without BOS and EOS; read one at a time. leaves: i64 [documents]. A document longer than a
    sequence is cut into several, each opened alike.
    """
    random = np.random.default_rng([seed, 201])
    found: list[int] = []
    rows = _rows(documents, leaves, length, random, markers)
    while shard := list(islice(rows, SHARD)):
        RaggedMmap.from_lists(_shard(directory, len(found) // SHARD), shard, dtype=np.int32)
        found += [int(row[0]) for row in shard]
    np.save(directory / "leaves.npy", np.array(found, dtype=np.int64))
    np.save(directory / "order.npy", random.permutation(len(found)))


def read_sequences(directory: Path, length: int) -> Sequences:
    """What `write_sequences` wrote there."""
    leaves, order = np.load(directory / "leaves.npy"), np.load(directory / "order.npy")
    shards = [RaggedMmap(_shard(directory, number)) for number in range(-(-len(order) // SHARD))]
    return StoredSequences(shards, order, leaves[order], length)


@dataclass(frozen=True)
class StoredSequences:
    """`Sequences` that stay in their files: `order[i]` is the row of the i-th."""

    shards: list[RaggedMmap]
    order: NDArray[np.int64]
    leaves: NDArray[np.int64]
    length: int

    def __len__(self) -> int:
        return len(self.order)

    def batch(self, indices: NDArray[np.int64]) -> tuple[Rows, Rows]:
        """The leaf split off, documents numbered, the end filled up."""
        tokens = np.full((len(indices), self.length), EOS_ID, dtype=np.int32)
        documents = np.full((len(indices), self.length), -1, dtype=np.int32)
        for at, index in enumerate(indices):
            shard, place = divmod(int(self.order[index]), SHARD)
            row = self.shards[shard][place][1:]
            first = row < 0
            tokens[at, : len(row)] = np.where(first, ~row, row)
            documents[at, : len(row)] = np.cumsum(first) - 1
        return tokens, documents


def _shard(directory: Path, number: int) -> Path:
    return directory / f"{number:05d}"


def _rows(
    documents: Sequence[Sequence[int]],
    leaves: NDArray[np.int64],
    length: int,
    random: np.random.Generator,
    markers: Markers,
) -> Iterator[Rows]:
    by_leaf = np.argsort(leaves, kind="stable")
    bounds = np.flatnonzero(np.diff(leaves[by_leaf])) + 1
    for begin, end in pairwise([0, *bounds.tolist(), len(leaves)]):
        bins: list[list[int]] = []
        pieces = [
            piece
            for index in random.permutation(by_leaf[begin:end])
            for piece in _pieces(documents[index], length, markers)
        ]
        for piece in pieces:
            # First fit leaves little to fill; a leaf has few sequences, so looking through all is cheap.
            place = next((b for b in bins if len(b) + len(piece) <= length), None)
            if place is None:
                bins.append(list(piece))
            else:
                place.extend(piece)
        leaf = int(leaves[by_leaf[begin]])
        yield from (np.array([leaf, *tokens], dtype=np.int32) for tokens in bins)


def _pieces(document: Sequence[int], length: int, markers: Markers) -> list[list[int]]:
    whole, width = [*document, *markers.closing], length - len(markers.opening)
    cut = ([*markers.opening, *whole[start : start + width]] for start in range(0, len(whole), width))
    return [[~piece[0], *piece[1:]] for piece in cut]
