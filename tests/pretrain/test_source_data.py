"""A source of texts prepared shard by shard."""

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from edge_pretrain import source_data, sources
from edge_pretrain.corpus.documents import DataConfig
from edge_pretrain.data import Embedded, PrepareConfig, Prepared
from edge_pretrain.recipe import SourceRecipe
from edge_pretrain.source_data import prepare_source

LENGTH = 24
CONFIG = PrepareConfig(DataConfig(3, 0, 0, 0, 0, 0, 0, 1.0, 0), 3, 2, 320, LENGTH)


def text(number: int) -> str:
    return f"Town {number}. Town {number} is a place in the north. It has {37 * number} people."


def write(path: Path, count: int = 90) -> SourceRecipe:
    path.write_text("".join(json.dumps({"text": text(i)}) + "\n" for i in range(count)))
    return SourceRecipe(str(path))


class Directions:
    """Embeds a text by its letters; counts what it is asked for."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def __call__(self, texts: list[str]) -> NDArray[np.float32]:
        self.asked.append(len(texts))
        found = np.array([np.bincount([ord(c) % 16 for c in t], minlength=16) for t in texts], np.float32)
        return found / np.linalg.norm(found, axis=1, keepdims=True)


def prepared(source: SourceRecipe, root: Path, embed: Directions) -> Prepared:
    return prepare_source(CONFIG, source, root, Embedded(root, embed), seed=3)


def everything(of: Prepared) -> list[NDArray[np.generic]]:
    tokens, documents = of.sequences.batch(np.arange(len(of.sequences)))
    return [tokens, documents, of.sequences.leaves, of.leaves, *of.tree.centroids]


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    original = sources.window_shards
    monkeypatch.setattr(source_data, "window_shards", lambda *given: original(*given, shard=20))


def test_every_text_is_in_the_sequences_of_its_leaf(tmp_path: Path, small_shards: None):
    found = prepared(write(tmp_path / "a.jsonl"), tmp_path / "root", Directions())
    assert "".join(found.texts) == "".join(text(i) for i in range(90))
    assert len(found.leaves) == len(found.texts) == len(found.texts[:])
    assert found.tree.documents[0].sum() == len(found.texts)
    packed = np.bincount(found.sequences.leaves, minlength=9) > 0
    assert np.array_equal(packed, np.bincount(found.leaves, minlength=9) > 0)


def test_shards_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    source = write(tmp_path / "a.jsonl")
    whole = everything(prepared(source, tmp_path / "whole", Directions()))
    original = sources.window_shards
    monkeypatch.setattr(source_data, "window_shards", lambda *given: original(*given, shard=7))
    embed = Directions()
    parts = everything(prepared(source, tmp_path / "parts", embed))
    assert len(embed.asked) == 13, "a shard at a time"
    for one, other in zip(whole, parts, strict=True):
        assert np.array_equal(one, other)


def test_a_stopped_run_embeds_only_what_is_missing_and_a_finished_one_reads_no_text(
    tmp_path: Path, small_shards: None, monkeypatch: pytest.MonkeyPatch
):
    source, root = write(tmp_path / "a.jsonl"), tmp_path / "root"

    class Stops(Directions):
        def __call__(self, texts: list[str]) -> NDArray[np.float32]:
            if len(self.asked) == 3:
                raise KeyboardInterrupt
            return super().__call__(texts)

    with pytest.raises(KeyboardInterrupt):
        prepared(source, root, Stops())
    embed = Directions()
    first = everything(prepared(source, root, embed))
    assert len(embed.asked) == 2, "three of five shards were there"
    monkeypatch.setattr(source_data, "documents", lambda *given: pytest.fail("read the source again"))
    again = everything(prepared(source, root, embed))
    assert len(embed.asked) == 2
    for one, other in zip(first, again, strict=True):
        assert np.array_equal(one, other)


def test_a_source_that_has_changed_is_prepared_anew(tmp_path: Path):
    root, path = tmp_path / "root", tmp_path / "a.jsonl"
    assert "".join(prepared(write(path, 30), root, Directions()).texts).startswith("Town 0.")
    path.write_text(json.dumps({"text": "A ship in the south. " * 40}) + "\n")
    assert "Town" not in "".join(prepared(SourceRecipe(str(path)), root, Directions()).texts)


def test_a_source_without_texts_is_refused(tmp_path: Path):
    (tmp_path / "a.jsonl").write_text("\n".join([json.dumps({"text": "  "})]))
    with pytest.raises(sources.SourceError, match=r"a\.jsonl: holds no text"):
        prepared(SourceRecipe(str(tmp_path / "a.jsonl")), tmp_path / "root", Directions())
