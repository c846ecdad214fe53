"""From a corpus to what training reads: embeddings, tree, tokenizer, packed sequences, each step cached."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
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
from edge_pretrain.pack import STORED, pack, read_sequences, write_rows
from edge_pretrain.recipe import SourceRecipe
from edge_pretrain.sequences import Sequences
from edge_pretrain.sources import SourceError, documents, window_shards, windows
from edge_pretrain.tokenizer import open_tokenizer, train_tokenizer

Embed = Callable[[list[str]], Embeddings]
Rows = list[NDArray[np.int32]]  # as `edge_pretrain.pack.pack` makes them


@dataclass(frozen=True)
class PrepareConfig:
    """How a corpus is turned into sequences; `sequence_length` and `vocab_size` in tokens."""

    data: DataConfig
    fanout: int
    depth: int
    vocab_size: int
    sequence_length: int
    source: SourceRecipe | None = None


@dataclass(frozen=True)
class Prepared:
    """`tree_path`, `tokenizer_path` and `questions_path` are files that the checkpoint copies."""

    corpus: Corpus
    texts: list[str]
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


def source_texts(source: SourceRecipe, config: PrepareConfig, root: Path) -> list[str]:
    """The windows of a source's documents, of a sequence each, as texts. Raises SourceError."""

    def texts() -> Iterator[str]:
        return documents(source.path, source.field, source.limit or None)

    key = asdict(source)
    path = Path(source.tokenizer)
    if not source.tokenizer:
        train = lambda out: train_tokenizer(texts(), config.vocab_size, out / "tokenizer.json")  # noqa: E731
        path = cached(root, "source-tokenizer", [key, config.vocab_size], train) / "tokenizer.json"
    tokenizer = open_tokenizer(path, config.vocab_size)
    shards = window_shards(texts(), tokenizer, config.sequence_length - 2, root, key)
    found = tokenizer.decode_batch(windows(shards))
    if not found:
        raise SourceError(f"{source.path}: holds no text")
    return list(found)


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


def sequences_of(root: Path, key: object, length: int, rows: Callable[[], Rows]) -> Sequences:
    """The packed sequences that `key` names; `rows` packs them if they are not there yet."""
    folder = cached(root, "sequences", key, lambda out: write_rows(out / "rows", rows()))
    return read_sequences(folder / "rows", length)


def prepare(config: PrepareConfig, root: Path, embedded: Embedded) -> Prepared:
    """Do every step that is not done yet under `root`."""
    seed = config.data.seed
    corpus = build_corpus(config.data) if config.source is None else Corpus([], [], [])
    texts = [document.text for document in corpus.documents]
    if config.source is not None:
        texts = source_texts(config.source, config, root)
    content = digest(texts)
    embeddings = embedded(texts)

    tree, tree_path = tree_of(root, content, embeddings, config.fanout, config.depth, seed)
    tokenizer_dir = cached(
        root,
        "tokenizer",
        [content, config.vocab_size],
        lambda out: train_tokenizer(texts, config.vocab_size, out / "tokenizer.json"),
    )
    tokenizer_path = tokenizer_dir / "tokenizer.json"
    if config.source is not None and config.source.tokenizer:
        tokenizer_path = Path(config.source.tokenizer)

    key = [tree_path.parent.name, tokenizer_dir.name, config.sequence_length, STORED]

    def rows() -> Rows:
        encoded = Tokenizer.from_file(str(tokenizer_path)).encode_batch(texts, add_special_tokens=False)
        return pack([e.ids for e in encoded], tree.lookup(embeddings), config.sequence_length, seed)

    questions = demo_order(build_questions(corpus), seed)
    lines = [json.dumps(question.to_json()) + "\n" for question in questions]

    def write_questions(out: Path) -> None:
        (out / "questions.jsonl").write_text("".join(lines))

    questions_dir = cached(root, "questions", lines, write_questions)
    return Prepared(
        corpus,
        texts,
        questions,
        common_questions(config.data, 400) if config.source is None else [],
        tree,
        tree_path,
        tokenizer_path,
        questions_dir / "questions.jsonl",
        sequences_of(root, key, config.sequence_length, rows),
    )
