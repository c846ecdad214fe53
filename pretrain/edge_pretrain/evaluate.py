"""Greedy exact match on held-out questions, and held-out loss, for the ways in which a model reads its bank.

`baseline` reads no memory, `generic` the generic memory, `fetched` the path of the text, `blocked` the next
best path when the best-matching level-1 node, 1/16 of the bank, is blocked (Pouransari et al. 2025, sec. 4),
`random` the path of a leaf drawn at random.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor

from edge_pretrain.memories import MemoryBank
from edge_pretrain.model import Anchor

Mode = Literal["baseline", "generic", "fetched", "blocked", "random"]
BATCH = 64


@dataclass(frozen=True)
class Probe:
    """Texts whose scored tokens a model must predict.

    tokens: i64 [n, T], filled up at the right. scored: bool [n, T], True at the tokens to be predicted.
    """

    tokens: Tensor
    scored: Tensor


@dataclass(frozen=True)
class Routes:
    """A leaf per text, i64 [n] each: the routed one, the next best around the blocked node, any at all."""

    fetched: Tensor
    blocked: Tensor
    random: Tensor

    def leaves(self, mode: Mode) -> Tensor:
        """The leaves that a mode reads; of `generic`, which reads none, those that are routed."""
        return {"blocked": self.blocked, "random": self.random}.get(mode, self.fetched)


def _padded(ids: Sequence[Sequence[int]], scored_from: Sequence[int]) -> Probe:
    length = max(len(row) for row in ids)
    tokens = torch.zeros(len(ids), length, dtype=torch.long)
    scored = torch.zeros(len(ids), length, dtype=torch.bool)
    for i, (row, start) in enumerate(zip(ids, scored_from, strict=True)):
        tokens[i, : len(row)] = torch.tensor(row)
        scored[i, start : len(row)] = True
    return Probe(tokens, scored)


def question_probe(
    tokenizer: Tokenizer, bos: int, prompts: Sequence[str], answers: Sequence[str], end: str
) -> Probe:
    """Questions: the tokens of the answer and of `end`, the text that stops a generation, are scored.

    A greedy generation writes exactly `answer + end` if and only if the most likely token is right at each of
    these positions given the right ones before it, so one forward pass replaces the generation loop.
    """
    prompt_ids = [[bos, *e.ids] for e in tokenizer.encode_batch(list(prompts), add_special_tokens=False)]
    texts = [prompt + answer + end for prompt, answer in zip(prompts, answers, strict=True)]
    ids = [[bos, *e.ids] for e in tokenizer.encode_batch(texts, add_special_tokens=False)]
    for prompt, row, text in zip(prompt_ids, ids, texts, strict=True):
        if row[: len(prompt)] != prompt:
            raise ValueError(f"evaluate: the tokens of {text!r} do not begin with those of its prompt")
    return _padded(ids, [len(row) for row in prompt_ids])


def text_probe(tokenizer: Tokenizer, bos: int, texts: Sequence[str]) -> Probe:
    """Whole texts: every token after the BOS is scored."""
    ids = [[bos, *e.ids] for e in tokenizer.encode_batch(list(texts), add_special_tokens=False)]
    return _padded(ids, [1] * len(ids))


@torch.no_grad()
def score(
    anchor: Anchor, probe: Probe, bank: MemoryBank | None, routes: Routes | None, mode: Mode
) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
    """Whether greedy decoding gets all scored tokens right, bool [n], and their mean loss in nats, f32 [n].

    `bank` and `routes` may be None for the mode `baseline`.
    """
    # Texts of like length share a batch, so that little is computed for the filling.
    lengths = probe.tokens.shape[1] - probe.scored.flip(1).int().argmax(1)
    order = torch.argsort(lengths)
    correct = np.empty(len(probe.tokens), dtype=np.bool_)
    losses = np.empty(len(probe.tokens), dtype=np.float32)
    for start in range(0, len(order), BATCH):
        index = order[start : start + BATCH]
        length = int(lengths[index[-1]])
        tokens, scored = probe.tokens[index, :length], probe.scored[index, :length]
        memory = None
        if mode != "baseline":
            if bank is None or routes is None:
                raise ValueError(f"evaluate: mode {mode} needs a bank and routes")
            memory = bank.fetch(routes.leaves(mode)[index], torch.full((len(index),), mode == "generic"))
        logits = anchor(tokens, memory)[:, :-1]
        targets, scored = tokens[:, 1:], scored[:, 1:]
        hit = (logits.argmax(-1) == targets) | ~scored
        loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none").view_as(targets)
        correct[index.numpy()] = hit.all(1).numpy()
        losses[index.numpy()] = ((loss * scored).sum(1) / scored.sum(1)).numpy()
    return correct, losses
