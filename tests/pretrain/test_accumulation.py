"""A batch in pieces: the same gradients as at once."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_frozen import make_trainer as make_frozen
from test_train import make_trainer

from edge_pretrain.accumulation import pieces_of
from edge_pretrain.compute import Compute


@given(st.integers(1, 300), st.integers(1, 16), st.integers(0, 40))
def test_pieces_are_of_the_size_asked_for_and_none_is_empty(sequences: int, world: int, microbatch: int):
    world = min(world, sequences)
    pieces = pieces_of(sequences, world, microbatch)
    shares = [len(range(rank, sequences, world)) for rank in range(world)]
    assert all(pieces <= share for share in shares)
    if microbatch:
        assert max(-(-share // pieces) for share in shares) <= microbatch + (len(set(shares)) > 1)
    else:
        assert pieces == 1


@pytest.mark.parametrize("memory", [False, True])
@pytest.mark.parametrize("microbatch", [1, 3])
def test_a_training_in_pieces_is_the_training(memory: bool, microbatch: int):
    whole, pieces = make_trainer(memory), make_trainer(memory)
    pieces.compute = Compute(microbatch=microbatch)
    sizes = []
    pieces.anchor.layers[0].register_forward_hook(lambda module, given, found: sizes.append(len(given[0])))
    for _ in range(4):
        assert pieces.train_step() == pytest.approx(whole.train_step(), abs=1e-5)
    assert max(sizes) <= microbatch
    assert sum(sizes) == 4 * 8
    torch.testing.assert_close(pieces.anchor.state_dict(), whole.anchor.state_dict(), atol=1e-5, rtol=0)
    if pieces.bank is not None and whole.bank is not None:
        torch.testing.assert_close(pieces.bank.levels, whole.bank.levels, atol=1e-5, rtol=0)


def test_frozen_memories_in_pieces():
    whole, pieces = make_frozen(range(5)), make_frozen(range(5))
    pieces.compute = Compute(microbatch=1)
    for _ in range(3):
        assert pieces.train_step() == pytest.approx(whole.train_step(), abs=1e-5)
    torch.testing.assert_close(pieces.bank.levels, whole.bank.levels, atol=1e-5, rtol=0)


def test_documents_of_one_token_have_no_loss_and_spoil_none():
    """A piece of nothing but such documents: the mean of no losses is not a number."""
    whole, pieces = make_trainer(memory=False), make_trainer(memory=False)
    for trainer in (whole, pieces):
        rows = trainer.batch_indices(0)
        trainer.sequences.documents[rows[0]] = range(trainer.sequences.documents.shape[1])
    pieces.compute = Compute(microbatch=1)
    assert pieces.train_step() == pytest.approx(whole.train_step(), abs=1e-5)
