"""What a trained model knows: greedy answers to the elements' questions, and the loss on held-out common text."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer

from edge_pretrain.cluster import Embeddings
from edge_pretrain.corpus.questions import END, Question
from edge_pretrain.data import Prepared
from edge_pretrain.evaluate import Mode, Probe, Routes, question_probe, score
from edge_pretrain.memories import MemoryBank
from edge_pretrain.model import Anchor
from edge_pretrain.tokenizer import BOS_ID

Router = Callable[[Sequence[str]], Embeddings]  # embeds what is routed


@dataclass(frozen=True)
class Scores:
    """correct: bool [questions], in the order of `Examination.questions`; common_loss: nats a token."""

    correct: list[bool]
    common_loss: float


def test_questions(prepared: Prepared) -> list[Question]:
    """What is reported: all questions on the elements. No hyperparameter may be chosen by them."""
    return [q for q in prepared.questions if q.kind == "element"]


def validation_questions(prepared: Prepared, count: int = 700) -> list[Question]:
    """What hyperparameters are chosen by: synthetic people and places, the rarest and most frequent fifths."""
    found = [q for q in prepared.questions if q.kind != "element" and q.bucket in (0, 4)]
    return [found[i] for i in np.random.default_rng(5).permutation(len(found))[:count]]


class Examination:
    """Questions and the common texts of one corpus, tokenized and routed once."""

    def __init__(self, prepared: Prepared, embedded: Router, questions: list[Question]) -> None:
        self.questions = questions
        tokenizer = Tokenizer.from_file(str(prepared.tokenizer_path))

        def probe(pairs: Iterable[tuple[str, str]]) -> tuple[Probe, Routes]:
            prompts, answers = zip(*pairs, strict=True)
            embeddings = embedded(prompts)
            tree = prepared.tree
            leaves = tree.lookup(embeddings)
            top: NDArray[np.int64] = leaves // tree.fanout ** (tree.depth - 1)
            filled = np.flatnonzero(tree.documents[-1])
            drawn = np.random.default_rng(6).choice(filled, len(leaves))
            found = (leaves, tree.lookup(embeddings, top), drawn)
            routes = Routes(*(torch.from_numpy(nodes) for nodes in found))
            ends = [f" {answer}" for answer in answers]
            return question_probe(tokenizer, BOS_ID, prompts, ends, END), routes

        self._facts = probe((q.prompt, q.answer) for q in questions)
        self._common = probe((first, rest.removesuffix(END)) for first, rest in prepared.common)

    def __call__(self, anchor: Anchor, bank: MemoryBank | None, mode: Mode) -> Scores:
        """The scores of one way of reading the bank; `bank` is None for the mode "baseline"."""
        anchor.eval()
        correct, _ = score(anchor, self._facts[0], bank, self._facts[1], mode)
        _, losses = score(anchor, self._common[0], bank, self._common[1], mode)
        return Scores([bool(right) for right in correct], float(losses.mean()))
