import copy
import io
import os
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from edge_pretrain.loop import TrainingInterruptedError, run_phase
from edge_pretrain.memories import MemoryBank, MemoryConfig
from edge_pretrain.model import Anchor, AnchorConfig
from edge_pretrain.next_token import targets_of
from edge_pretrain.sequences import ArraySequences
from edge_pretrain.train import PhaseConfig, Schedule, Trainer

ANCHOR = AnchorConfig(
    layers=2, d_model=32, heads=2, head_dim=16, ffn_dim=48, vocab_size=40, context_length=32
)
MEMORY = MemoryConfig(fanout=4, rows=(2, 8), layers=(0, 1))
QUIET = Console(quiet=True)


def facts(sequences: int = 64, leaf_bits: int = 16) -> ArraySequences:
    """Each leaf has one fact, `7 8 9 -> value of the leaf`, which only the leaf's memory can tell apart."""
    generator = np.random.default_rng(0)
    leaves = generator.integers(0, leaf_bits, sequences)
    tokens = np.tile(np.array([1, 7, 8, 9, 0, 2], dtype=np.int32), (sequences, 5))[:, :30]
    documents = np.repeat(np.arange(5, dtype=np.int32), 6)[None].repeat(sequences, 0)
    tokens[:, 4::6] = 20 + leaves[:, None]
    return ArraySequences(tokens, documents, leaves.astype(np.int64))


def make_trainer(memory: bool, steps: int = 8, rate: float = 3e-3) -> Trainer:
    generator = torch.Generator().manual_seed(0)
    anchor = Anchor(ANCHOR)
    anchor.initialize(generator)
    bank = MemoryBank.initialized(MEMORY, ANCHOR, generator) if memory else None
    phase = PhaseConfig(
        steps, 8, 2, Schedule(rate, rate / 10), 0.05, Schedule(1e-2, 1e-3) if memory else None, 1e-3
    )
    return Trainer(anchor, phase, facts(), seed=5, bank=bank)


def assert_same_state(a: object, b: object) -> None:
    if isinstance(a, torch.Tensor):
        assert isinstance(b, torch.Tensor)
        assert torch.equal(a, b)
    elif isinstance(a, dict):
        assert isinstance(b, dict)
        assert a.keys() == b.keys()
        for key in a:
            assert_same_state(a[key], b[key])
    elif isinstance(a, list):
        assert isinstance(b, list)
        for x, y in zip(a, b, strict=True):
            assert_same_state(x, y)
    else:
        assert a == b


def test_targets_stay_within_a_document():
    tokens = torch.tensor([[1, 2, 3, 4, 5, 0]])
    documents = torch.tensor([[0, 0, 0, 1, 1, -1]])
    assert targets_of(tokens, documents).tolist() == [[2, 3, -100, 5, -100, -100]]


def test_the_schedule_warms_up_and_ends_at_the_final_rate():
    schedule = Schedule(1.0, 0.1)
    rates = [schedule.at(step, 101, 10) for step in range(101)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[9] == rates[10] == pytest.approx(1.0)
    assert rates[55] == pytest.approx(0.55)
    assert rates[100] == pytest.approx(0.1)


def test_every_epoch_visits_every_sequence_once():
    trainer = make_trainer(memory=False)
    visited = np.concatenate([trainer.batch_indices(step) for step in range(16)])
    assert sorted(visited[:64]) == sorted(visited[64:]) == list(range(64))
    assert list(visited[:64]) != list(visited[64:])


@pytest.mark.parametrize("memory", [False, True])
def test_a_resumed_phase_ends_with_the_same_bits(tmp_path: Path, memory: bool):
    straight = make_trainer(memory)
    run_phase(straight, tmp_path / "straight", "phase", "f", 100, QUIET)

    first = make_trainer(memory)
    original = first.train_step

    def interrupted_after_three_steps() -> tuple[float, float]:
        result = original()
        if first.step == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return result

    first.train_step = interrupted_after_three_steps  # type: ignore[method-assign]
    with pytest.raises(TrainingInterruptedError, match="stopped after step 3; run again to resume"):
        run_phase(first, tmp_path / "halves", "phase", "f", 100, QUIET)
    second = make_trainer(memory)
    run_phase(second, tmp_path / "halves", "phase", "f", 100, QUIET)
    assert second.step == straight.step == 8
    assert_same_state(second.state_dict(), straight.state_dict())


def test_a_finished_phase_is_not_trained_again_and_another_configuration_is(tmp_path: Path):
    run_phase(make_trainer(False), tmp_path, "phase", "f", 100, QUIET)
    again = make_trainer(False)
    again.train_step = lambda: pytest.fail("trained again")  # type: ignore[method-assign]
    run_phase(again, tmp_path, "phase", "f", 100, QUIET)
    other = make_trainer(False)
    run_phase(other, tmp_path, "phase", "g", 100, QUIET)
    assert other.finished


def test_another_recipe_sets_a_state_aside_and_the_first_finds_it_again(tmp_path: Path):
    console = Console(file=io.StringIO(), width=200)
    for fingerprint in ("f", "g"):
        stopped = make_trainer(False)
        step = stopped.train_step

        def stop_at_once(step: Callable[[], tuple[float, float]] = step) -> tuple[float, float]:
            os.kill(os.getpid(), signal.SIGINT)
            return step()

        stopped.train_step = stop_at_once  # type: ignore[method-assign]
        with pytest.raises(TrainingInterruptedError):
            run_phase(stopped, tmp_path, "phase", fingerprint, 100, console)
    assert "phase.pt: of another recipe or seed; kept as phase.f.pt" in console.file.getvalue()  # type: ignore[attr-defined]
    assert (tmp_path / "phase.f.csv").exists()
    again = make_trainer(False)
    steps: list[int] = []
    step = again.train_step
    again.train_step = lambda: (steps.append(again.step), step())[1]  # type: ignore[method-assign]
    run_phase(again, tmp_path, "phase", "f", 100, console)
    assert steps[0] == 1
    assert (tmp_path / "phase.g.pt").exists()


def test_a_damaged_state_is_refused_with_one_line(tmp_path: Path):
    run_phase(make_trainer(False), tmp_path, "phase", "f", 100, QUIET)
    path = tmp_path / "phase.pt"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"phase\.pt: damaged training state; delete it"):
        run_phase(make_trainer(False), tmp_path, "phase", "f", 100, QUIET)


def test_memory_and_bank_belong_together():
    trainer = make_trainer(memory=True)
    with pytest.raises(ValueError, match="needs a bank"):
        Trainer(trainer.anchor, trainer.phase, trainer.sequences, 0)


def test_memories_learn_what_only_the_leaf_knows():
    anchor_only = make_trainer(memory=False, steps=120)
    with_memory = make_trainer(memory=True, steps=120)
    losses = {}
    for name, trainer in (("anchor", anchor_only), ("memory", with_memory)):
        while not trainer.finished:
            losses[name], _ = trainer.train_step()
    # The anchor cannot do better than guess among 16 values in one of five tokens: ln(16) / 5.
    assert losses["anchor"] > 0.4
    assert losses["memory"] < 0.25


def test_only_touched_blocks_move():
    trainer = make_trainer(memory=True)
    assert trainer.bank is not None
    before = copy.deepcopy(trainer.bank.levels)
    leaves = set(trainer.sequences.leaves[trainer.batch_indices(0)].tolist())
    trainer.train_step()
    moved = {i for i in range(16) if not torch.equal(before[2][i], trainer.bank.levels[2][i])}
    assert moved <= leaves
    assert moved


def test_the_overhead_of_memories_is_measured():
    from edge_pretrain.overhead import Dimensions, measure

    found = measure(Dimensions(ANCHOR, (2, 4), 2, 16), steps=2)
    assert found["ratio"] > 0
    assert found["anchor_s"] > 0
