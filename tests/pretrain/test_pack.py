import tempfile
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_pretrain.pack import pack, read_sequences, write_rows
from edge_pretrain.tokenizer import BOS_ID, EOS_ID

documents_and_leaves = st.lists(
    st.tuples(st.lists(st.integers(2, 50), max_size=30), st.integers(0, 5)), min_size=1, max_size=40
)


@settings(max_examples=60, deadline=None)
@given(documents_and_leaves, st.integers(2, 16), st.integers(0, 3))
def test_every_token_is_kept_in_a_sequence_of_its_leaf(items: list, length: int, seed: int):
    documents, leaves = [d for d, _ in items], np.array([leaf for _, leaf in items], dtype=np.int64)
    rows = pack(documents, leaves, length, seed)
    with tempfile.TemporaryDirectory() as directory:
        write_rows(Path(directory) / "rows", rows)
        found = read_sequences(Path(directory) / "rows", length)
    assert found.tokens.shape == found.documents.shape == (len(found), length)

    pieces: dict[int, list[tuple[int, ...]]] = {}
    for tokens, numbers, leaf in zip(found.tokens, found.documents, found.leaves, strict=True):
        used = numbers >= 0
        assert (tokens[~used] == EOS_ID).all()
        assert (np.diff(used.astype(int)) <= 0).all(), "the filling is at the end"
        for number in np.unique(numbers[used]):
            piece = tokens[numbers == number]
            assert piece[0] == BOS_ID
            assert (piece[1:] != BOS_ID).all()
            pieces.setdefault(int(leaf), []).append(tuple(piece[1:].tolist()))

    wanted: dict[int, list[tuple[int, ...]]] = {}
    for document, leaf in items:
        whole = [*document, EOS_ID]
        wanted.setdefault(leaf, []).extend(
            tuple(whole[start : start + length - 1]) for start in range(0, len(whole), length - 1)
        )
    # No document of one leaf ever stands in a sequence of another, and nothing is lost.
    assert {leaf: sorted(p) for leaf, p in pieces.items()} == {leaf: sorted(p) for leaf, p in wanted.items()}


def test_sequences_are_filled_well():
    random = np.random.default_rng(0)
    documents = [list(range(2, 2 + n)) for n in random.integers(10, 40, 500)]
    rows = pack(documents, random.integers(0, 4, 500), 128, seed=0)
    assert sum(len(row) - 1 for row in rows) / (128 * len(rows)) > 0.9


def test_packing_depends_on_the_seed_only():
    documents = [[5] * 10] * 20
    leaves = np.arange(20) % 3
    first, again, other = (pack(documents, leaves, 16, seed) for seed in (0, 0, 1))
    assert [r.tolist() for r in first] == [r.tolist() for r in again]
    assert [int(r[0]) for r in first] != [int(r[0]) for r in other]
