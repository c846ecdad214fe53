"""How well a router stands in for the teacher: agreement with its paths, and the answers that follow."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from edge_pretrain.checkpoint import Checkpoint
from edge_pretrain.cluster import ClusterTree, Embeddings
from edge_pretrain.corpus.questions import Question
from edge_pretrain.data import Prepared
from edge_pretrain.router.distill import paths_of
from edge_pretrain.scores import Examination, Router
from edge_runtime import _core
from edge_runtime.text import readable

# What makes the static router a bundle's default, on questions about people and places, which nothing is reported on.
LEAF_AGREEMENT = 0.80
ANSWER_POINTS = 0.02  # by how much its answers may be worse than the teacher's
RULE = (
    f"leaf agreement of at least {LEAF_AGREEMENT:.0%} and answers at most {100 * ANSWER_POINTS:.0f} points below "
    "MiniLM's, on validation questions about people and places"
)


class StaticFile:
    """A written static embedder, as a runtime uses it."""

    def __init__(self, path: Path, tokenizer: Tokenizer) -> None:
        self._core, self._tokenizer = _core.StaticEmbedder(str(path)), tokenizer

    def __call__(self, texts: Sequence[str]) -> Embeddings:
        """f32 [n, dim]."""
        encodings = self._tokenizer.encode_batch([readable(text) for text in texts], add_special_tokens=False)
        return np.stack([self._core.embed(np.array(e.ids, np.uint32)) for e in encodings])


def agreement(tree: ClusterTree, found: Embeddings, wanted: Embeddings) -> list[float]:
    """For each level the share of texts whose path down to it is the wanted one."""
    same = paths_of(tree, found) == paths_of(tree, wanted)
    return [float(level.mean()) for level in np.logical_and.accumulate(same, axis=1).T]


def agreement_by_margin(
    tree: ClusterTree, found: Embeddings, wanted: Embeddings, shares: Sequence[float]
) -> dict[float, float]:
    """Leaf agreement among the texts of the largest margins: of each share of them, by the least margin of a path."""
    margins = least_margins(tree, found)
    same = tree.lookup(found) == tree.lookup(wanted)
    order = np.argsort(-margins, kind="stable")
    return {share: float(same[order[: max(1, round(share * len(order)))]].mean()) for share in shares}


def least_margins(tree: ClusterTree, embeddings: Embeddings) -> NDArray[np.float64]:
    """f64 [n]: the smallest margin, in squared distance, on the path of each text."""
    least = np.full(len(embeddings), np.inf)
    nodes = np.zeros(len(embeddings), np.int64)
    for centroids, documents in zip(tree.centroids, tree.documents, strict=True):
        children = nodes[:, None] * tree.fanout + np.arange(tree.fanout)
        differences = embeddings[:, None, :] - centroids[children]
        distances = np.einsum("nkd,nkd->nk", differences, differences).astype(np.float64)
        distances[documents[children] == 0] = np.inf
        nearest = np.sort(distances, axis=1)[:, :2]
        least = np.minimum(least, nearest[:, 1] - nearest[:, 0])
        nodes = children[np.arange(len(nodes)), distances.argmin(axis=1)]
    return least


@dataclass(frozen=True)
class Verdict:
    """agreement: by level. answers: the share of right ones, by router. `default`: whether RULE holds."""

    questions: int
    agreement: list[float]
    answers: dict[str, float]

    @property
    def default(self) -> bool:
        static, teacher = self.answers["static"], self.answers["minilm"]
        return self.agreement[-1] >= LEAF_AGREEMENT and static >= teacher - ANSWER_POINTS


def verdict(
    prepared: Prepared,
    checkpoint: Checkpoint,
    questions: list[Question],
    teacher: Router,
    static: Router,
) -> Verdict:
    """Both routers on the same questions and the same trained memories."""
    prompts = [question.prompt for question in questions]

    def right(embed: Router) -> float:
        exam = Examination(prepared, embed, questions)
        return float(np.mean(exam(checkpoint.anchor, checkpoint.memories, "fetched").correct))

    return Verdict(
        len(questions),
        agreement(prepared.tree, static(prompts), teacher(prompts)),
        {"minilm": right(teacher), "static": right(static)},
    )
