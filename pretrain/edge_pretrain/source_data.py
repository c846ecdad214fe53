"""From a source of texts to what training reads, a shard at a time: what a step makes lies on disk and is mapped.

Memory holds one shard's documents and embeddings, so that a corpus is bounded by the disk. A run that was stopped goes
on at the first shard that is missing.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path

import numpy as np

from edge_pretrain.cache import cached, digest
from edge_pretrain.cluster import Embeddings
from edge_pretrain.corpus.documents import Corpus
from edge_pretrain.data import Embedded, PrepareConfig, Prepared, sequences_of, tree_of, write_questions
from edge_pretrain.pack import write_sequences
from edge_pretrain.recipe import SourceRecipe
from edge_pretrain.sources import SourceError, Windows, WindowTexts, documents, state_of, window_shards
from edge_pretrain.tokenizer import open_tokenizer, train_tokenizer


def prepare_source(
    config: PrepareConfig, source: SourceRecipe, root: Path, embedded: Embedded, seed: int
) -> Prepared:
    """Do every step that is not done yet under `root`. Raises SourceError."""
    key = [asdict(source), state_of(source.path)]

    def texts() -> Iterator[str]:
        return documents(source.path, source.field, source.limit or None)

    tokenizer_path = Path(source.tokenizer)
    if not source.tokenizer:
        train = lambda out: train_tokenizer(texts(), config.vocab_size, out / "tokenizer.json")  # noqa: E731
        folder = cached(root, "source-tokenizer", [key, config.vocab_size], train)
        tokenizer_path = folder / "tokenizer.json"
    tokenizer = open_tokenizer(tokenizer_path, config.vocab_size)

    length = config.sequence_length
    content = digest([key, digest(tokenizer.to_str()), length])

    def cut(out: Path) -> None:
        shards = window_shards(texts(), tokenizer, length - 2, root, content)
        (out / "shards.json").write_text(json.dumps([shard.name for shard in shards]))

    # What was cut lies in shards of their own: this says which, so that the source is not read again to know.
    names = json.loads((cached(root, "windows", content, cut) / "shards.json").read_text())
    windows = Windows([root / name for name in names])
    if len(windows) == 0:
        raise SourceError(f"{source.path}: holds no text")
    found = WindowTexts(windows, tokenizer)

    embeddings = _embeddings(root, content, windows, found, embedded)
    tree, tree_path = tree_of(root, content, embeddings, config.fanout, config.depth, seed)
    place = cached(
        root, "leaves", tree_path.parent.name, lambda out: np.save(out / "leaves", tree.lookup(embeddings))
    )
    leaves = np.load(place / "leaves.npy")
    return Prepared(
        Corpus([], [], []),
        found,
        leaves,
        [],
        [],
        tree,
        tree_path,
        tokenizer_path,
        write_questions(root, []),
        sequences_of(
            root,
            [place.name, seed],
            length,
            lambda out: write_sequences(out, windows, leaves, length, seed),
        ),
    )


def _embeddings(
    root: Path, content: str, windows: Windows, texts: WindowTexts, embedded: Embedded
) -> Embeddings:
    """f32 [windows, dim], mapped."""

    def join(out: Path) -> None:
        rows: Embeddings | None = None
        for begin, end in pairwise(windows.starts.tolist()):
            shard = embedded(texts[begin:end])
            if rows is None:
                shape = (len(windows), shard.shape[1])
                rows = np.lib.format.open_memmap(out / "rows.npy", "w+", np.float32, shape)
            rows[begin:end] = shard

    folder = cached(root, "source-embeddings", content, join)
    mapped: Embeddings = np.load(folder / "rows.npy", mmap_mode="r")
    return mapped
