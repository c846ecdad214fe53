import json
from pathlib import Path

import numpy as np
import pytest
from tiny_recipe import TINY
from tokenizers import Tokenizer

from edge_pretrain import checkpoint, sources
from edge_pretrain.recipe import SourceRecipe, training_digest
from edge_pretrain.sources import SourceError, Windows, documents, sizes_of, window_shards
from edge_pretrain.tokenizer import open_tokenizer, train_tokenizer

TEXTS = [f"Town {i}. Town {i} is a place in the north. It has {37 * i} people." for i in range(40)]


def jsonl(path: Path) -> Path:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    return path


def parquet(path: Path) -> Path:
    arrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet as files

    files.write_table(arrow.table({"text": TEXTS}), path)
    return path


def folder(path: Path) -> Path:
    path.mkdir()
    for i, text in enumerate(TEXTS):
        (path / f"{i:03d}.txt").write_text(text)
    return path


@pytest.mark.parametrize(("make", "name"), [(jsonl, "a.jsonl"), (parquet, "a.parquet"), (folder, "a")])
def test_each_form_gives_the_same_documents(tmp_path: Path, make, name: str):
    source = str(make(tmp_path / name))
    assert list(documents(source)) == TEXTS
    assert list(documents(source, limit=3)) == TEXTS[:3]


def test_a_hugging_face_dataset_is_streamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    datasets = pytest.importorskip("datasets")
    asked = {}

    def load_dataset(name: str, **options: object) -> list[dict[str, str]]:
        asked.update(options, name=name)
        return [{"text": text} for text in TEXTS]

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert list(documents("hf:some/corpus:validation")) == TEXTS
    assert asked == {"name": "some/corpus", "split": "validation", "streaming": True}


@pytest.mark.parametrize(
    ("content", "name", "says"),
    [
        (None, "none.jsonl", "no such file or folder"),
        (b'{"text": 3}\n', "a.jsonl", "line 1: no text under 'text': int is not text"),
        (b'{"body": "x"}\n', "a.jsonl", "line 1: no text under 'text'"),
        (b"{", "a.jsonl", "line 1"),
        (b'{"text": "x"}\n\xff\xfe\n', "a.jsonl", "a.jsonl: line 2: no text under 'text'"),
        (b"PAR1", "a.parquet", "no texts in column 'text'"),
        (b"\xff\xfe", "a.txt", "not readable as UTF-8"),
        (b"x", "a.csv", "not a known form"),
    ],
)
def test_a_bad_source_is_one_line(tmp_path: Path, content: bytes | None, name: str, says: str):
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(SourceError, match=says) as caught:
        list(documents(str(tmp_path / name)))
    assert "\n" not in str(caught.value)


def test_blank_lines_and_a_byte_order_mark_are_no_documents(tmp_path: Path):
    (tmp_path / "a.jsonl").write_bytes(b'\xef\xbb\xbf{"text": "x"}\n\n{"text": "y"}\n\n')
    assert list(documents(str(tmp_path / "a.jsonl"))) == ["x", "y"]


def test_half_a_character_is_replaced(tmp_path: Path):
    (tmp_path / "a.jsonl").write_text('{"text": "a\\ud800b"}\n')
    assert list(documents(str(tmp_path / "a.jsonl"))) == ["a\ufffdb"]


def test_windows_cover_the_documents_and_a_stopped_run_goes_on_at_the_missing_shard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    train_tokenizer(TEXTS, 300, tmp_path / "tokenizer.json")
    tokenizer = open_tokenizer(tmp_path / "tokenizer.json", 300)
    made = []
    original = sources.RaggedMmap.from_lists

    def stopped_in_the_third(path: Path, *rest: object, **more: object) -> object:
        made.append(path)
        if len(made) == 3:
            raise KeyboardInterrupt
        return original(path, *rest, **more)

    monkeypatch.setattr(sources.RaggedMmap, "from_lists", stopped_in_the_third)
    with pytest.raises(KeyboardInterrupt):
        window_shards(iter(TEXTS), tokenizer, 8, tmp_path / "shards", "key", shard=10)
    shards = window_shards(iter(TEXTS), tokenizer, 8, tmp_path / "shards", "key", shard=10)
    assert len(shards) == 4
    assert len(made) == 5, "two shards were there, the third and fourth are made now"
    found = list(Windows(shards))
    assert max(len(window) for window in found) == 8
    joined = "".join(tokenizer.decode_batch(found))
    assert joined == "".join(TEXTS)


def test_a_tokenizer_that_does_not_fit_is_refused(tmp_path: Path):
    train_tokenizer(TEXTS, 300, tmp_path / "tokenizer.json")
    with pytest.raises(ValueError, match=r"tokens; tokens\.vocab_size is 270"):
        open_tokenizer(tmp_path / "tokenizer.json", 270)
    (tmp_path / "other.json").write_text((tmp_path / "tokenizer.json").read_text().replace("<|bos|>", "<s>"))
    with pytest.raises(ValueError, match="must be its tokens 0 and 1"):
        open_tokenizer(tmp_path / "other.json", 300)
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(ValueError, match="not a tokenizer"):
        open_tokenizer(tmp_path / "broken.json", 300)


@pytest.mark.parametrize("existing", [False, True], ids=["trained", "existing"])
def test_a_recipe_trains_on_a_source(tmp_path: Path, existing: bool):
    from edge_runtime.cli.main import main

    lines = f'[source]\npath = "{jsonl(tmp_path / "a.jsonl")}"\n'
    if existing:
        train_tokenizer(TEXTS[:20], 290, tmp_path / "tokenizer.json")
        lines += f'tokenizer = "{tmp_path / "tokenizer.json"}"\n'
    (tmp_path / "recipe.toml").write_text(TINY + lines)
    arguments = [
        "pretrain",
        "--recipe",
        str(tmp_path / "recipe.toml"),
        "-o",
        str(tmp_path / "run"),
        "--threads",
        "1",
    ]
    assert main(arguments) == 0
    loaded = checkpoint.load(tmp_path / "run" / "checkpoint")
    assert loaded.tokenizer.get_vocab_size() <= 300
    if existing:
        assert loaded.tokenizer.to_str() == Tokenizer.from_file(str(tmp_path / "tokenizer.json")).to_str()
    assert any(np.any(block[:, :, 2].numpy()) for block in loaded.memories.levels.values())


def test_a_training_is_named_by_its_texts_wherever_they_lie(tmp_path: Path):
    folders = [folder(tmp_path / name) for name in ("here", "there")]

    def named(path: Path) -> str:
        return training_digest({"tokens": 1}, SourceRecipe(str(path)), 0)

    assert sizes_of(str(folders[0])) == sizes_of(str(folders[1]))
    assert sizes_of("hf:some/corpus") == []
    before = named(folders[0])
    (folders[0] / "new.txt").write_text("Town 99.")
    assert named(folders[0]) != before, "one text more"
    (folders[0] / "new.txt").unlink()
    assert named(folders[0]) == before
