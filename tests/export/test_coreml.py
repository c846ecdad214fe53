"""Core ML packages, interpreted, against the torch reference: a prefill and then token by token, memory on and off."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from families import save
from safetensors.torch import load_file
from torch import nn

from edge_export.coreml import GROUP, CoremlDecoder, export_coreml
from edge_export.huggingface import load_decoder
from edge_export.memory import InputMemory
from edge_export.mil import Package
from edge_export.model import Decoder
from edge_export.openlm import from_anchor
from edge_pretrain.checkpoint import load as load_checkpoint
from edge_pretrain.model import MemoryRows
from edge_runtime.bundle import Bundle
from edge_runtime.cli.main import main

# Of logits of about 1: fp16 keeps 11 bits, and a few hundred roundings come to this.
TOLERANCE = 0.04
TOKENS = np.random.default_rng(3).integers(3, 250, 20)
CALLS = (10, 1, 1, 5, 1, 1, 1)
ROWS, LAYERS, PREFILL = (8, 16), (1,), 12
SHAPES: list[tuple[int, ...]] = [(len(LAYERS), 3, rows, 32) for rows in ROWS]


def check(package: Path, decoder: Decoder, memory: list[npt.NDArray[np.float16]], layers: Any) -> None:
    """The package's logits at the end of each call are the decoder's, with the memory and without."""
    answers = []
    for level in (memory, [np.zeros_like(rows) for rows in memory]):
        rows = torch.from_numpy(np.concatenate(level, 2).astype(np.float32))[None]
        with torch.inference_mode():
            wanted = decoder(torch.from_numpy(TOKENS)[None], MemoryRows(rows, layers))[0].numpy()
        opened, at = Package(package), 0
        feeds = {f"memory_{index}": values for index, values in enumerate(level)}
        for count in CALLS:
            positions = np.arange(at, at + count, dtype=np.int32)
            tokens = TOKENS[None, at : at + count].astype(np.int32)
            name = "decode" if count == 1 else "prefill"
            found = opened.run(name, tokens=tokens, positions=positions, **feeds)["logits"]
            at += count
            assert found.dtype == np.float16
            assert np.abs(found[0] - wanted[at - 1]).max() < TOLERANCE
        answers.append(found)
    assert np.abs(answers[0] - answers[1]).max() > 5 * TOLERANCE


def random_memory(width: int) -> list[npt.NDArray[np.float16]]:
    random = np.random.default_rng(0)
    return [(0.3 * random.standard_normal((1, 3, r, width))).astype(np.float16) for r in ROWS]


@pytest.mark.parametrize(
    "case",
    # The one with every option always; the others take half a minute.
    [
        "gemma3-capped",
        *(pytest.param(case, marks=pytest.mark.slow) for case in ("llama3", "qwen2", "smollm3", "olmo2")),
    ],
)
def test_packages_equal_the_reference(case: str, tmp_path: Path) -> None:
    save(case, tmp_path)
    decoder, package = load_decoder(tmp_path, 4096), tmp_path / "anchor.mlpackage"
    export_coreml(CoremlDecoder(decoder, InputMemory("ffn", LAYERS)), SHAPES, PREFILL, "f16", package)
    check(package, decoder, random_memory(32), LAYERS)


def quantized(decoder: Decoder, dtype: str) -> None:
    """What the package's weights say, computed here: symmetric, of each matrix that is worth it."""
    largest = {"i8": 127, "i4": 7}[dtype]
    seen = set()
    for module in decoder.modules():
        if isinstance(module, nn.Linear | nn.Embedding) and module.weight.data_ptr() not in seen:
            seen.add(module.weight.data_ptr())
            weight = module.weight.half().float()
            groups = weight if dtype == "i8" else weight.reshape(-1, GROUP)
            scale = groups.abs().amax(1, keepdim=True) / largest
            if weight.numel() > 2048:
                values = (groups.half() / scale.half()).float().round() * scale.half()
                module.weight.data.copy_(values.reshape(weight.shape))


@pytest.mark.parametrize("dtype", [pytest.param("i8", marks=pytest.mark.slow), "i4"])
def test_quantised_packages_equal_the_quantised_reference(dtype: str, tmp_path: Path) -> None:
    save("gemma3", tmp_path, intermediate_size=96)
    decoder, package = load_decoder(tmp_path, 4096), tmp_path / "anchor.mlpackage"
    export_coreml(CoremlDecoder(decoder, InputMemory("ffn", LAYERS)), SHAPES, PREFILL, dtype, package)
    quantized(decoder, dtype)
    check(package, decoder, random_memory(32), LAYERS)


@pytest.fixture(scope="module")
def bundle(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    out = tmp_path_factory.mktemp("coreml") / "own.bundle"
    arguments = ["export", tiny_checkpoint, "-o", out, "--to", "coreml", "--routers", "static"]
    arguments += ["--max-prefill", PREFILL]
    assert main([str(argument) for argument in arguments]) == 0
    return Bundle.open(out)


def test_the_bundle_of_our_own_anchor(bundle: Bundle, tiny_checkpoint: Path) -> None:
    (program,) = bundle.manifest.programs
    assert (program.engine, program.flavour, program.dtype) == ("coreml", "portable", "f16")
    package = bundle.path_of(program.path)
    assert package.is_dir()
    files = [path for path in package.rglob("*") if path.is_file()]
    assert {path.relative_to(bundle.directory).as_posix() for path in files} <= bundle.manifest.files.keys()
    assert bundle.bytes_of(program) == sum(path.stat().st_size for path in files)
    assert [finding for _, _, finding in bundle.verify() if finding] == []

    checkpoint = load_checkpoint(tiny_checkpoint)
    levels = load_file(tiny_checkpoint / "memories.safetensors")
    memory = [
        levels[f"level{level}"][0].numpy().astype(np.float16)
        for level, _ in checkpoint.memories.config.levels
    ]
    check(package, from_anchor(checkpoint.anchor), memory, checkpoint.memories.config.layers)


def test_both_functions_share_the_weights(bundle: Bundle) -> None:
    weights = sum(path.stat().st_size for path in bundle.directory.rglob("weight.bin"))
    # Beside them the file holds the tables of positions.
    assert weights < 1.2 * 2 * bundle.manifest.anchor.parameters


@pytest.mark.skipif(sys.platform == "darwin", reason="there it runs")
def test_without_core_ml_the_engine_says_where_it_runs(
    bundle: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", str(bundle.directory), "Hafnium"]) == 1
    err = capsys.readouterr().err
    assert "needs macOS or iOS" in err
    assert err.count("\n") == 1
    assert main(["compare", str(bundle.directory), "--json"]) == 1
    rows = json.loads(capsys.readouterr().out)
    assert all("needs macOS or iOS" in row["reason"] for row in rows)
