"""The static embedder of the core against the reference that is written from the document."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from make_golden import GOLDEN, STATIC_TEXTS, static
from static_reference import StaticFile, bucket

from edge_runtime import _core
from edge_runtime.errors import InvalidArgumentError

VOCAB, WIDTH, DIM, ROWS = 50, 8, 12, 33


def random_file(order: int) -> StaticFile:
    random = np.random.default_rng(order)
    rows = ROWS if order > 1 else 0
    return StaticFile(
        order,
        random.integers(-127, 128, (VOCAB, WIDTH)).astype(np.int8),
        random.random(VOCAB).astype(np.float32),
        random.integers(-127, 128, (rows, WIDTH)).astype(np.int8),
        random.random(rows).astype(np.float32),
        random.standard_normal((WIDTH, DIM)).astype(np.float32),
        random.standard_normal(DIM).astype(np.float32),
    )


def write(path: Path, file: StaticFile) -> None:
    tables = (file.tokens, file.token_scales, file.ngrams, file.ngram_scales, file.map, file.bias)
    _core.write_static_embedder(str(path), file.order, *tables)


@pytest.fixture(scope="module", params=[1, 2, 4])
def pair(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[StaticFile, _core.StaticEmbedder]:
    file = random_file(request.param)
    path = tmp_path_factory.mktemp("static") / "static.safetensors"
    write(path, file)
    assert path.read_bytes() == file.to_bytes()
    return file, _core.StaticEmbedder(str(path))


@settings(max_examples=200, deadline=None)
@given(ids=st.lists(st.integers(0, VOCAB - 1), max_size=60))
def test_every_embedding_equals_the_reference(
    pair: tuple[StaticFile, _core.StaticEmbedder], ids: list[int]
) -> None:
    file, core = pair
    found = core.embed(np.array(ids, np.uint32))
    np.testing.assert_allclose(found, file.embed(ids), rtol=0, atol=1e-6)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, core.embed(np.array(ids, np.uint32)))


@given(ids=st.lists(st.integers(0, 2**32 - 1), max_size=9), length=st.integers(1, 4))
def test_ngram_buckets_are_those_of_the_document(ids: list[int], length: int) -> None:
    wanted = [bucket(ids[i : i + length], 1009) for i in range(len(ids) - length + 1)]
    assert _core.ngram_buckets(np.array(ids, np.uint32), length, 1009).tolist() == wanted


def test_the_golden_files_are_those_of_the_document() -> None:
    assert (GOLDEN / "static.safetensors").read_bytes() == static().to_bytes()
    core = _core.StaticEmbedder(str(GOLDEN / "static.safetensors"))
    wanted = np.frombuffer((GOLDEN / "static.values").read_bytes(), "<f4").reshape(len(STATIC_TEXTS), -1)
    for ids, row in zip(STATIC_TEXTS, wanted, strict=True):
        np.testing.assert_allclose(core.embed(np.array(ids, np.uint32)), row, rtol=0, atol=1e-6)


def test_any_safetensors_reader_opens_the_file(tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    file = random_file(2)
    write(tmp_path / "static.safetensors", file)
    tables = load_file(tmp_path / "static.safetensors")
    for name in ("tokens", "token_scales", "ngrams", "ngram_scales", "map", "bias"):
        np.testing.assert_array_equal(tables[name], getattr(file, name))


def test_tables_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    file = random_file(2)
    with pytest.raises(InvalidArgumentError, match="widths"):
        write(tmp_path / "x", StaticFile(**{**vars(file), "map": file.map[1:]}))
    with pytest.raises(InvalidArgumentError, match="scale"):
        write(tmp_path / "x", StaticFile(**{**vars(file), "token_scales": -file.token_scales}))
    write(tmp_path / "static.safetensors", file)
    core = _core.StaticEmbedder(str(tmp_path / "static.safetensors"))
    with pytest.raises(InvalidArgumentError, match="token 50"):
        core.embed(np.array([50], np.uint32))
