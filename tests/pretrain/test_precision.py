"""bf16 on the CPU: near f32, with weights, gradients and moments in f32 all the same."""

import copy

import pytest
import torch
from test_frozen import make_trainer as make_frozen
from test_train import ANCHOR, MEMORY, facts

from edge_pretrain.compute import CPU, Compute, device_of
from edge_pretrain.memories import MemoryBank
from edge_pretrain.model import Anchor
from edge_pretrain.train import PhaseConfig, Schedule, Trainer

BF16 = Compute(precision="bf16")
STEPS = 60


def trained(compute: Compute) -> tuple[Trainer, list[float]]:
    generator = torch.Generator().manual_seed(0)
    anchor = Anchor(ANCHOR)
    anchor.initialize(generator)
    bank = MemoryBank.initialized(MEMORY, ANCHOR, generator)
    phase = PhaseConfig(STEPS, 8, 5, Schedule(3e-3, 3e-4), 0.05, Schedule(1e-2, 1e-3), 1e-3)
    trainer = Trainer(anchor, phase, facts(), 5, bank, compute)
    return trainer, [trainer.train_step()[0] for _ in range(STEPS)]


def dtypes(state: object) -> set[torch.dtype]:
    if isinstance(state, torch.Tensor):
        return {state.dtype} if state.is_floating_point() else set()
    if isinstance(state, dict):
        return set().union(*(dtypes(value) for value in state.values()))
    return set()


def test_bf16_learns_what_f32_learns_and_keeps_f32_states():
    (trainer, half), (_, full) = trained(BF16), trained(CPU)
    assert half != full, "autocast computes otherwise"
    assert full[-1] < 0.5 * full[0]
    assert half == pytest.approx(full, abs=0.05)
    assert dtypes(trainer.state_dict()) == {torch.float32}
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in trainer.anchor.parameters())


def test_autocast_computes_products_in_bf16():
    trainer, _ = trained(CPU)
    seen = []
    trainer.anchor.layers[0].feed_forward.w1.register_forward_hook(lambda *given: seen.append(given[2].dtype))
    for compute in (CPU, BF16):
        trainer.compute = compute
        trainer.train_step()
    assert seen == [torch.float32, torch.bfloat16]


def test_frozen_memories_are_trained_in_bf16_too():
    full, half = make_frozen(range(5)), make_frozen(range(5))
    half.compute = BF16
    before = copy.deepcopy(half.bank.levels)
    losses = [[trainer.train_step()[0] for _ in range(6)] for trainer in (full, half)]
    assert losses[0] != losses[1]
    assert losses[1] == pytest.approx(losses[0], abs=0.05)
    assert dtypes(half.state_dict()) == {torch.float32}
    assert any(not torch.equal(before[level], block) for level, block in half.bank.levels.items())


def test_a_gpu_that_is_not_there_is_one_line(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert device_of("cpu", 3) == "cpu"
    with pytest.raises(ValueError, match="process 0 of this machine, which has 0 GPUs"):
        device_of("cuda", 0)
