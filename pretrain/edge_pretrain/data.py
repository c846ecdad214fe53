"""From the built-in corpus to what training reads: embeddings, tree, tokenizer, packed sequences, each step cached.

`edge_pretrain.source_data` does the same for texts of any size.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from edge_pretrain.cache import cached, digest
from edge_pretrain.cluster import ClusterTree, Embeddings, build_tree
from edge_pretrain.corpus.documents import Corpus, DataConfig, build_corpus
from edge_pretrain.corpus.questions import Question, build_questions, common_questions
from edge_pretrain.embed import SHA256
from edge_pretrain.pack import STORED, read_sequences, write_sequences
from edge_pretrain.sequences import Sequences
from edge_pretrain.tokenizer import train_tokenizer

Embed = Callable[[list[str]], Embeddings]


@dataclass(frozen=True)
class PrepareConfig:
    """How a corpus is turned into sequences; `sequence_length` and `vocab_size` in tokens."""

    data: DataConfig
    fanout: int
    depth: int
    vocab_size: int
    sequence_length: int


@dataclass(frozen=True)
class Prepared:
    """`tree_path`, `tokenizer_path` and `questions_path` are files that the checkpoint copies.

    leaves: i64 [texts], the tree's leaf of each.
    """

    corpus: Corpus
    texts: Sequence[str]
    leaves: NDArray[np.int64]
    questions: list[Question]
    common: list[tuple[str, str]]
    tree: ClusterTree
    tree_path: Path
    tokenizer_path: Path
    questions_path: Path
    sequences: Sequences


class Embedded:
    """Embeds texts once: what was embedded before is read back from `root`."""

    def __init__(self, root: Path, embed: Embed) -> None:
        self._root, self._embed = root, embed

    def __call__(self, texts: Sequence[str]) -> Embeddings:
        """f32 [n, dim]; equal texts are embedded once."""
        different = sorted(set(texts))
        key = {"embedder": SHA256, "texts": digest(different)}
        path = cached(
            self._root, "embeddings", key, lambda out: np.save(out / "rows", self._embed(different))
        )
        rows: Embeddings = np.load(path / "rows.npy")
        index = {text: i for i, text in enumerate(different)}
        return rows[[index[text] for text in texts]]


def demo_order(questions: list[Question], seed: int) -> list[Question]:
    """Rare and frequent elements in turn first, then all others: a short evaluation sees both."""
    random = np.random.default_rng([seed, 107])
    shuffled = [questions[i] for i in random.permutation(len(questions))]
    numbers = [q for q in shuffled if q.fact == "atomic number"]
    rare, frequent = ([q for q in numbers if q.bucket == bucket] for bucket in (0, 4))
    first = [q for pair in zip(rare, frequent, strict=False) for q in pair]
    chosen = set(first)
    return first + [q for q in shuffled if q not in chosen]


def tree_of(
    root: Path, content: str, embeddings: Embeddings, fanout: int, depth: int, seed: int
) -> tuple[ClusterTree, Path]:
    """The tree over texts that `content` names, and its file."""

    def build(out: Path) -> None:
        tree = build_tree(embeddings, fanout, depth, seed)
        arrays: dict[str, Any] = {f"centroids{i}": tree.centroids[i] for i in range(depth)}
        arrays |= {f"documents{i}": tree.documents[i] for i in range(depth)}
        np.savez(out / "tree.npz", **arrays)
        tree.write(out / "tree.safetensors")

    folder = cached(root, "tree", [content, fanout, depth, seed], build)
    arrays = np.load(folder / "tree.npz")
    centroids, documents = (
        [arrays[f"{name}{i}"] for i in range(depth)] for name in ("centroids", "documents")
    )
    return ClusterTree(fanout, centroids, documents), folder / "tree.safetensors"


def sequences_of(root: Path, key: object, length: int, write: Callable[[Path], None]) -> Sequences:
    """The packed sequences that `key` names; `write` packs them if they are not there yet."""
    folder = cached(root, "sequences", [key, STORED], write)
    return read_sequences(folder, length)


def prepare(config: PrepareConfig, root: Path, embedded: Embedded) -> Prepared:
    """Do every step for the built-in corpus that is not done yet under `root`."""
    seed = config.data.seed
    corpus = build_corpus(config.data)
    texts = [document.text for document in corpus.documents]
    content = digest(texts)
    embeddings = embedded(texts)
    tree, tree_path = tree_of(root, content, embeddings, config.fanout, config.depth, seed)
    leaves = tree.lookup(embeddings)
    tokenizer_dir = cached(
        root,
        "tokenizer",
        [content, config.vocab_size],
        lambda out: train_tokenizer(texts, config.vocab_size, out / "tokenizer.json"),
    )
    tokenizer_path, length = tokenizer_dir / "tokenizer.json", config.sequence_length

    def write(out: Path) -> None:
        encoded = Tokenizer.from_file(str(tokenizer_path)).encode_batch(texts, add_special_tokens=False)
        write_sequences(out, [e.ids for e in encoded], leaves, length, seed)

    questions = demo_order(build_questions(corpus), seed)
    return Prepared(
        corpus,
        texts,
        leaves,
        questions,
        common_questions(config.data, 400),
        tree,
        tree_path,
        tokenizer_path,
        write_questions(root, questions),
        sequences_of(root, [tree_path.parent.name, tokenizer_dir.name, length], length, write),
    )


def write_questions(root: Path, questions: Sequence[Question]) -> Path:
    """The file of the questions, a line each."""
    lines = [json.dumps(question.to_json()) + "\n" for question in questions]

    def write(out: Path) -> None:
        (out / "questions.jsonl").write_text("".join(lines))

    return cached(root, "questions", lines, write) / "questions.jsonl"
