"""Blocks trained on a frozen anchor, one group of them after another; stopped and resumed between steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from edge_pretrain.loop import load_state, save_state, stop_requests
from edge_pretrain.model import Anchor, MemoryRows

GROUP = 32  # blocks trained at a time: so many have gradients and moments
SAVE_EVERY = 100
WARMUP = 10


class TeachingInterruptedError(Exception):
    """Ctrl-C or SIGTERM: the last finished step is on disk."""


@dataclass(frozen=True)
class TeachConfig:
    """epochs: over a group's texts. penalty: of the squared distance from the block's old self, for each text."""

    epochs: int = 20
    batch: int = 32
    learning_rate: float = 1e-2
    penalty: float = 1e-4
    seed: int = 0


@dataclass(frozen=True)
class Example:
    """`start`: the first token that is learnt; those before it are the heading, which a question brings itself."""

    tokens: list[int]
    start: int


@dataclass(frozen=True)
class Lesson:
    """One block, f32 [layers, 3, r, d], and what it is to learn.

    beside: f32 [layers, 3, R, d], the other blocks of its path, which are read with it and stay as they are.
    """

    node: int
    block: Tensor
    beside: Tensor
    examples: Sequence[Example]


class GroupTrainer:
    """Adam on a group's blocks; the anchor's parameters need no gradient."""

    def __init__(
        self, anchor: Anchor, layers: tuple[int, ...], lessons: Sequence[Lesson], config: TeachConfig
    ) -> None:
        self._anchor, self._layers, self._config = anchor, layers, config
        self._old = torch.stack([lesson.block for lesson in lessons])
        self.blocks = self._old.clone().requires_grad_()
        # Paths of one level are equally wide, but a removed block leaves a gap: zero rows say nothing.
        widest = max(lesson.beside.shape[2] for lesson in lessons)
        self._beside = torch.stack(
            [F.pad(one.beside, (0, 0, 0, widest - one.beside.shape[2])) for one in lessons]
        )
        pairs = [(slot, example) for slot, lesson in enumerate(lessons) for example in lesson.examples]
        self._owners = torch.tensor([slot for slot, _ in pairs])
        self._examples = [example for _, example in pairs]
        self._random = [config.seed, *(lesson.node for lesson in lessons[:1])]
        self._optimizer = torch.optim.Adam([self.blocks], lr=config.learning_rate, betas=(0.9, 0.95))
        self._per_epoch = _per_epoch(lessons, config)
        self.step = 0

    @property
    def steps(self) -> int:
        return self._per_epoch * self._config.epochs

    def train_step(self) -> float:
        """One step; returns the loss of its texts, nats a token."""
        epoch, part = divmod(self.step, self._per_epoch)
        order = np.random.default_rng([*self._random, epoch]).permutation(len(self._examples))
        chosen = order[part * self._config.batch : (part + 1) * self._config.batch]
        tokens, targets = self._batch(chosen)
        owners = self._owners[torch.from_numpy(chosen)]
        rows = torch.cat([self._beside[owners], self.blocks[owners]], dim=3)
        wanted = targets >= 0
        hidden = self._anchor.hidden(tokens, MemoryRows(rows, self._layers))[wanted]
        loss = F.cross_entropy(F.linear(hidden, self._anchor.output_weight), targets[wanted])
        distance = (self.blocks - self._old)[owners].square().flatten(1).sum(dim=1).mean()
        self._optimizer.zero_grad()
        torch.autograd.backward(loss + self._config.penalty * distance)
        warm = min(1.0, (self.step + 1) / WARMUP)
        cosine = 0.05 + 0.95 * (1 + math.cos(math.pi * self.step / self.steps)) / 2
        for group in self._optimizer.param_groups:
            group["lr"] = self._config.learning_rate * warm * cosine
        self._optimizer.step()
        self.step += 1
        return loss.item()

    def _batch(self, chosen: Sequence[int] | np.ndarray[Any, Any]) -> tuple[Tensor, Tensor]:
        """Tokens and, where a token is learnt, the next one; -100 elsewhere."""
        examples = [self._examples[i] for i in chosen]
        length = max(len(example.tokens) for example in examples)
        tokens = torch.zeros(len(examples), length, dtype=torch.long)
        targets = torch.full((len(examples), length), -100)
        for row, example in enumerate(examples):
            ids = torch.tensor(example.tokens)
            tokens[row, : len(ids)] = ids
            targets[row, example.start - 1 : len(ids) - 1] = ids[example.start :]
        return tokens, targets

    def state_dict(self) -> dict[str, Any]:
        return {"step": self.step, "blocks": self.blocks.detach(), "optimizer": self._optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.step = state["step"]
        self._optimizer.load_state_dict(state["optimizer"])
        with torch.no_grad():
            self.blocks.copy_(state["blocks"])


def _per_epoch(lessons: Sequence[Lesson], config: TeachConfig) -> int:
    return math.ceil(sum(len(lesson.examples) for lesson in lessons) / config.batch)


Progress = Callable[[int, int, float], None]
"""Is told the steps done, those in all, and the last loss."""


def train(
    anchor: Anchor,
    layers: tuple[int, ...],
    lessons: Sequence[Lesson],
    config: TeachConfig,
    state_path: Path,
    fingerprint: str,
    progress: Progress,
) -> dict[int, Tensor]:
    """The taught blocks by node. Continues the state at `state_path` where it has the same fingerprint.

    Raises:
        TeachingInterruptedError: after the state was saved.
        ValueError: the state is damaged.
    """
    groups = [lessons[i : i + GROUP] for i in range(0, len(lessons), GROUP)]
    steps = [_per_epoch(group, config) * config.epochs for group in groups]
    total = sum(steps)
    state = load_state(state_path, fingerprint)
    done: list[Tensor] = [] if state is None else list(state["done"])

    with stop_requests() as stop:
        for index in range(len(done), len(groups)):
            trainer = GroupTrainer(anchor, layers, groups[index], config)
            if state is not None and state["group"] is not None and index == len(state["done"]):
                trainer.load_state_dict(state["group"])
            before = sum(steps[:index])

            def save(group: dict[str, Any] | None) -> None:
                save_state(state_path, {"fingerprint": fingerprint, "done": done, "group": group})

            while trainer.step < trainer.steps:
                loss = trainer.train_step()
                progress(before + trainer.step, total, loss)
                if stop:
                    save(trainer.state_dict())
                    raise TeachingInterruptedError(
                        f"stopped after step {before + trainer.step} of {total}; run again to resume"
                    )
                if trainer.step % SAVE_EVERY == 0:
                    save(trainer.state_dict())
            done.append(trainer.blocks.detach())
            save(None)
    blocks = torch.cat(done)
    return {lesson.node: blocks[index] for index, lesson in enumerate(lessons)}
