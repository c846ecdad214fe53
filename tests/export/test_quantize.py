"""Quantised programs against the torch reference of the same quantised module, over memory of every kind."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

from edge_export.decoder import PagedDecoder
from edge_export.embedder import Int8Embedding
from edge_export.executorch import export_paged
from edge_export.openlm import from_anchor
from edge_export.quantize import quantize_decoder
from edge_pretrain.model import Anchor, AnchorConfig
from edge_runtime._core import LevelWriter
from edge_runtime.engines import load
from edge_runtime.errors import InvalidArgumentError
from edge_runtime.pager import Pager

load("executorch")
from edge_runtime import _executorch  # noqa: E402

CONFIG = AnchorConfig(2, 64, 2, 32, 128, 320, 96)
TOKENS = np.random.default_rng(3).integers(0, 320, (1, 16))
# Of the logits' standard deviation. Both sides round activations to 8 bits; a value that lies between two of them
# may go either way, and one step of an activation is what the largest difference comes to.
TOLERANCE = 0.15
START, NONE = torch.zeros(1, dtype=torch.long), torch.zeros(1, dtype=torch.long)


@pytest.fixture(scope="module")
def anchor() -> Anchor:
    anchor = Anchor(CONFIG)
    anchor.initialize(torch.Generator().manual_seed(7))
    return anchor


@pytest.fixture(scope="module", params=["int8", "8da4w"])
def pair(
    request: pytest.FixtureRequest, anchor: Anchor, tmp_path_factory: pytest.TempPathFactory
) -> tuple[PagedDecoder, Path]:
    """The quantised module and its program."""
    model = from_anchor(copy.deepcopy(anchor))
    quantize_decoder(model, request.param)
    decoder = PagedDecoder(model, (0, 1))
    path = tmp_path_factory.mktemp(request.param) / "anchor.pte"
    export_paged(decoder, 16, path)
    return decoder, path


def logits(module: PagedDecoder, handle: int = 0) -> npt.NDArray[np.float32]:
    with torch.no_grad():
        found: npt.NDArray[np.float32] = module(
            torch.from_numpy(TOKENS), START, torch.tensor([handle])
        ).numpy()
    return found


def run(
    method: _executorch.Method, tokens: npt.NDArray[np.int64], at: int, handle: int
) -> npt.NDArray[np.float32]:
    found: npt.NDArray[np.float32] = method.execute([tokens, np.array([at]), np.array([handle])])[0]
    return found


def bank(directory: Path, dtype: str) -> list[list[Path]]:
    files = []
    for level, nodes in ((1, 4), (2, 16)):
        path = directory / f"level{level}-{dtype}.safetensors"
        writer = LevelWriter(str(path), level, 4, dtype, CONFIG.d_model, 8, [0, 1], nodes)
        for node in range(nodes):
            random = np.random.default_rng([level, node])
            writer.append(node, 0.3 * random.standard_normal((2, 3, 8, CONFIG.d_model), np.float32))
        writer.finish()
        files.append([path])
    return files


@pytest.mark.parametrize("memory", ["none", "i8", "i4"])
def test_logits_equal_the_quantised_reference(
    pair: tuple[PagedDecoder, Path], tmp_path: Path, memory: str
) -> None:
    decoder, path = pair
    program = _executorch.Program(str(path), 2)
    with Pager(bank(tmp_path, "i8" if memory == "none" else memory), "10MB").fetch([(1, 2), (2, 9)]) as lease:
        handle = 0 if memory == "none" else lease.handle
        wanted = logits(decoder, handle)
        prefilled = run(program.load_method(), TOKENS, 0, handle)
        decoding = program.load_method()
        for at in range(TOKENS.shape[1]):
            decoded = run(decoding, TOKENS[:, at : at + 1].copy(), at, handle)
    assert np.abs(prefilled - wanted).max() < TOLERANCE * wanted.std()
    assert np.abs(decoded - wanted).max() < TOLERANCE * wanted.std()
    if memory != "none":
        assert np.abs(wanted - logits(decoder)).max() > 2 * TOLERANCE * wanted.std()


def test_the_program_is_small(pair: tuple[PagedDecoder, Path]) -> None:
    # A byte a weight at most, and the graph: a product or table that stayed in f32 would not fit.
    assert pair[1].stat().st_size < CONFIG.parameters + CONFIG.vocab_size * CONFIG.d_model + 100_000


@pytest.mark.parametrize("dtype", ["i8", "i4"])
def test_greedy_tokens_are_the_same_paged_and_resident(
    pair: tuple[PagedDecoder, Path], tmp_path: Path, dtype: str
) -> None:
    files = bank(tmp_path, dtype)
    program = _executorch.Program(str(pair[1]), 2)
    found = []
    for budget in (2 * 16384, 10_000_000):  # one path of two blocks, and the whole bank
        pager, tokens = Pager(files, budget), []
        for leaf in (9, 3, 9):
            with pager.fetch([(1, leaf // 4), (2, leaf)]) as lease:
                method = program.load_method()
                token, at = TOKENS, 0
                for _ in range(12):
                    best = int(run(method, token, at, lease.handle).argmax())
                    at += token.shape[1]
                    tokens.append(best)
                    token = np.array([[best]])
        found.append((tokens, pager.stats()["evictions"]))
    assert found[0][0] == found[1][0]
    assert found[0][1] > 0
    assert found[1][1] == 0


def test_an_embedding_keeps_its_rows_within_half_a_step() -> None:
    weight = torch.randn(50, 32, generator=torch.Generator().manual_seed(1))
    weight[7] = 0
    error = (Int8Embedding(weight)(torch.arange(50)) - weight).abs()
    assert bool((error <= weight.abs().amax(dim=1, keepdim=True) / 254 + 1e-6).all())


def test_bad_dtypes_and_widths_are_named(anchor: Anchor) -> None:
    with pytest.raises(InvalidArgumentError, match="8da4w"):
        quantize_decoder(from_anchor(anchor), "int3")
    narrow = Anchor(AnchorConfig(1, 48, 1, 32, 64, 320, 96))
    with pytest.raises(InvalidArgumentError, match="rows of 48"):
        quantize_decoder(from_anchor(narrow), "8da4w")
