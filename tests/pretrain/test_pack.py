import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_pretrain import pack
from edge_pretrain.pack import read_sequences, write_sequences
from edge_pretrain.tokenizer import BOS_ID, EOS_ID

documents_and_leaves = st.lists(
    st.tuples(st.lists(st.integers(2, 50), max_size=30), st.integers(0, 5)), min_size=1, max_size=40
)


@settings(max_examples=60, deadline=None)
@given(documents_and_leaves, st.integers(2, 16), st.integers(0, 3))
def test_every_token_is_kept_in_a_sequence_of_its_leaf(items: list, length: int, seed: int):
    documents, leaves = [d for d, _ in items], np.array([leaf for _, leaf in items], dtype=np.int64)
    with tempfile.TemporaryDirectory() as directory:
        write_sequences(Path(directory), documents, leaves, length, seed)
        found = read_sequences(Path(directory), length)
        all_tokens, all_numbers = found.batch(np.arange(len(found)))
    assert all_tokens.shape == all_numbers.shape == (len(found), length)

    pieces: dict[int, list[tuple[int, ...]]] = {}
    for tokens, numbers, leaf in zip(all_tokens, all_numbers, found.leaves, strict=True):
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


def test_sequences_are_filled_well(tmp_path: Path):
    random = np.random.default_rng(0)
    documents = [list(range(2, 2 + n)) for n in random.integers(10, 40, 500)]
    write_sequences(tmp_path, documents, random.integers(0, 4, 500), 128, seed=0)
    found = read_sequences(tmp_path, 128)
    _, numbers = found.batch(np.arange(len(found)))
    assert (numbers >= 0).mean() > 0.9


def test_packing_depends_on_the_seed_only(tmp_path: Path):
    documents = [[5] * 10] * 20
    leaves = np.arange(20) % 3
    found = []
    for name, seed in (("first", 0), ("again", 0), ("other", 1)):
        (tmp_path / name).mkdir()
        write_sequences(tmp_path / name, documents, leaves, 16, seed)
        found.append(read_sequences(tmp_path / name, 16).leaves.tolist())
    assert found[0] == found[1]
    assert found[0] != found[2]


def test_shards_hold_what_one_file_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    documents = [[number] * (number % 7 + 1) for number in range(2, 60)]
    leaves = np.arange(len(documents)) % 5
    batches = []
    for rows in (pack.SHARD, 4):
        monkeypatch.setattr(pack, "SHARD", rows)
        (tmp_path / str(rows)).mkdir()
        write_sequences(tmp_path / str(rows), documents, leaves, 16, seed=3)
        found = read_sequences(tmp_path / str(rows), 16)
        batches.append((*found.batch(np.arange(len(found))), found.leaves))
    assert len(list((tmp_path / "4").iterdir())) > 4
    for one, other in zip(*batches, strict=True):
        assert np.array_equal(one, other)
