import hashlib
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from edge_pretrain.embed import DIM, MAX_TOKENS, SHA256, EmbedderError, MiniLM, locate

TEXTS = [
    "Iron. Iron is a transition metal in period 4 of the periodic table.",
    "Near the river a quiet cow lives in the barn.",
    "",
    "Ünïcödé, 漢字 & digits 12345: what becomes of them?",
]
# 3 windows: more than 2 * (MAX_TOKENS - 2) word pieces.
LONG = " ".join(f"Sentence number {i} tells of a river and a town." for i in range(60))


@pytest.fixture(scope="module")
def minilm() -> MiniLM:
    return MiniLM()


def copy_of_the_model(directory: Path) -> Path:
    source = locate(None)
    directory.mkdir()
    for name in (*SHA256, "config.json"):
        shutil.copyfile(source / name, directory / name)
    return directory


def test_the_installed_files_are_the_pinned_ones():
    directory = locate(None)
    assert set(SHA256) == {"model.safetensors", "tokenizer.json"}
    for name, expected in SHA256.items():
        assert hashlib.sha256((directory / name).read_bytes()).hexdigest() == expected


def test_parity_with_sentence_transformers(minilm: MiniLM):
    from sentence_transformers import SentenceTransformer

    reference = SentenceTransformer(str(locate(None)), device="cpu").encode(TEXTS, normalize_embeddings=True)
    np.testing.assert_allclose(minilm.embed(TEXTS), reference, atol=1e-5)


def test_embeddings_have_unit_length_and_ignore_their_neighbours(minilm: MiniLM):
    together = minilm.embed([*TEXTS, LONG])
    assert together.shape == (len(TEXTS) + 1, DIM)
    assert together.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)
    for text, row in zip([*TEXTS, LONG], together, strict=True):
        np.testing.assert_allclose(minilm.embed([text])[0], row, atol=1e-5)


def test_a_long_text_is_the_mean_of_its_windows(minilm: MiniLM):
    windows = minilm.windows(LONG)
    assert len(windows) == 3
    assert [len(w) for w in windows[:2]] == [MAX_TOKENS] * 2
    with torch.inference_mode():
        mean = minilm._pool(windows).mean(axis=0)
    np.testing.assert_allclose(minilm.embed([LONG])[0], mean / np.linalg.norm(mean), atol=1e-5)


def test_progress_counts_every_text_once(minilm: MiniLM):
    counted = []
    minilm.embed([*TEXTS, LONG, *TEXTS], counted.append)
    assert sum(counted) == 2 * len(TEXTS) + 1


@pytest.mark.parametrize("name", SHA256)
def test_a_changed_file_is_refused(tmp_path: Path, name: str):
    directory = copy_of_the_model(tmp_path / "model")
    with (directory / name).open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"?")
    with pytest.raises(EmbedderError, match=rf"{name}: sha256 [0-9a-f]{{64}} is not {SHA256[name]}"):
        MiniLM(directory)


def test_a_missing_file_is_refused(tmp_path: Path):
    directory = copy_of_the_model(tmp_path / "model")
    (directory / "tokenizer.json").unlink()
    with pytest.raises(EmbedderError, match=r"tokenizer\.json: missing; the directory must hold"):
        MiniLM(directory)


def test_a_directory_is_accepted(tmp_path: Path, minilm: MiniLM):
    other = MiniLM(copy_of_the_model(tmp_path / "model"))
    np.testing.assert_array_equal(other.embed(TEXTS[:1]), minilm.embed(TEXTS[:1]))
