import copy
from pathlib import Path

import pytest
import torch
from rich.console import Console
from test_train import ANCHOR, MEMORY, assert_same_state, facts
from tiny_recipe import TINY

from edge_pretrain import subtrees
from edge_pretrain.frozen import FrozenConfig, FrozenTrainer, clip_blocks, unit_nodes
from edge_pretrain.loop import run_phase
from edge_pretrain.memories import MemoryBank, Touched
from edge_pretrain.model import Anchor
from edge_pretrain.train import Schedule

ALL = range(MEMORY.fanout + 1)
FROZEN = """
[phases.frozen]
steps = 3
batch = 2
warmup = 1
memory_learning_rate = 1e-2
memory_weight_decay = 1e-3
"""


def make_trainer(units: range | list[int], steps: int = 6) -> FrozenTrainer:
    generator = torch.Generator().manual_seed(0)
    anchor = Anchor(ANCHOR)
    anchor.initialize(generator)
    bank = MemoryBank.initialized(MEMORY, ANCHOR, generator)
    config = FrozenConfig(steps, 3, 2, Schedule(1e-2, 1e-3), 1e-3)
    return FrozenTrainer(
        anchor, config, facts(leaf_bits=12), 5, bank, units
    )  # no documents in the last subtree


def finished(trainer: FrozenTrainer) -> FrozenTrainer:
    while not trainer.finished:
        trainer.train_step()
    return trainer


def test_units_share_no_block_and_miss_none():
    seen = {level: torch.zeros(MEMORY.fanout**level, dtype=torch.int) for level, _ in MEMORY.levels}
    for unit in ALL:
        for level, nodes in unit_nodes(MEMORY, unit).items():
            seen[level][nodes] += 1
    assert all((count == 1).all() for count in seen.values())


def test_jobs_of_subtrees_merge_into_one_job_bit_for_bit():
    one = finished(make_trainer(ALL))
    jobs = [finished(make_trainer([unit])) for unit in ALL]
    merged = subtrees.merged([job.state_dict() for job in jobs])
    assert_same_state(merged, one.state_dict())
    loaded = make_trainer(ALL)
    loaded.load_state_dict(merged)
    assert_same_state(loaded.bank.levels, one.bank.levels)
    assert_same_state(loaded.sparse.state_dict(), one.sparse.state_dict())
    assert not torch.equal(one.bank.levels[2][:12], make_trainer(ALL).bank.levels[2][:12])


def test_a_job_moves_neither_the_anchor_nor_another_subtree():
    job = make_trainer([1])
    before, weights = copy.deepcopy(job.bank.levels), copy.deepcopy(job.anchor.state_dict())
    finished(job)
    assert_same_state(job.anchor.state_dict(), weights)
    moved = {level: (block != before[level]).flatten(1).any(1) for level, block in job.bank.levels.items()}
    assert moved[1].tolist() == [False, True, False, False]
    assert not moved[0].any()
    assert not moved[2][:4].any()
    assert not moved[2][8:].any()
    assert moved[2][4:8].any()


def test_jobs_at_different_steps_are_not_merged():
    with pytest.raises(ValueError, match="different steps"):
        subtrees.merged([finished(make_trainer([0])).state_dict(), make_trainer([1]).state_dict()])


def test_each_block_is_clipped_by_itself():
    small, large = torch.full((1, 1, 3, 2, 4), 0.01), torch.full((1, 1, 3, 2, 4), 7.0)
    part = Touched(2, torch.tensor([0, 1]), torch.cat([small, large]))
    clip_blocks([part])
    assert torch.equal(part.gradient[:1], small)
    assert part.gradient[1].norm() == pytest.approx(1.0)


def test_a_resumed_frozen_phase_ends_with_the_same_bits(tmp_path: Path):
    half = make_trainer(ALL)
    for _ in range(2):
        half.train_step()
    resumed = make_trainer(ALL)
    resumed.load_state_dict(copy.deepcopy(half.state_dict()))
    run_phase(resumed, tmp_path, "frozen", "f", 100, Console(quiet=True))
    assert_same_state(resumed.state_dict(), finished(make_trainer(ALL)).state_dict())


def test_memories_learn_on_a_frozen_anchor():
    trainer = make_trainer(ALL, steps=60)
    first = trainer.train_step()[0]
    while not trainer.finished:
        last = trainer.train_step()[0]
    assert last < 0.6 * first


def test_the_command_trains_units_and_merges_them_into_a_finished_phase(tmp_path: Path, capfd):
    from edge_runtime.cli.main import main

    recipe = tmp_path / "tiny.toml"
    recipe.write_text(TINY + FROZEN)
    arguments = ["-o", str(tmp_path / "run"), "--recipe", str(recipe), "--threads", "1"]
    assert subtrees.main(["train", *arguments, "--unit", "0"]) == 0
    assert subtrees.main(["merge", *arguments]) == 1
    assert "frozen-unit01.pt: no finished job of this recipe" in capfd.readouterr().err
    for unit in range(1, 5):
        assert subtrees.main(["train", *arguments, "--unit", str(unit)]) == 0
    assert subtrees.main(["merge", *arguments]) == 0
    frozen = tmp_path / "run" / "phases" / "frozen.pt"
    merged = torch.load(frozen, weights_only=True)
    frozen.unlink()
    # One job for all units, as a recipe with [phases.frozen] is trained otherwise.
    assert main(["pretrain", *arguments]) == 0
    assert_same_state(torch.load(frozen, weights_only=True), merged)
