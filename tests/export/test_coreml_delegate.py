"""ExecuTorch programs with the Core ML delegate: the package in them, interpreted, against the torch reference."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from safetensors.torch import load_file

from edge_export.executorch_coreml import embedded_package
from edge_export.inputs import load_inputs
from edge_export.mil import Package
from edge_export.samples import MEMORY, OWN, write_sample
from edge_export.source import Source
from edge_pretrain.memories import MemoryConfig
from edge_pretrain.model import MemoryRows
from edge_runtime.bundle import Bundle
from edge_runtime.cli.main import main

TOLERANCE = 0.04
TOKENS = np.random.default_rng(3).integers(0, 250, 12)


def export(source: Path, out: Path, *more: str, memories: Path | None = None) -> int:
    arguments = [
        "export",
        source,
        "-o",
        out,
        "--to",
        "executorch",
        "--delegate",
        "coreml",
        "--routers",
        "static",
    ]
    arguments += ["--memory", memories] if memories else []
    return main([str(argument) for argument in [*arguments, *more]])


def steps(package: Package, memory: dict[str, Any]) -> npt.NDArray[np.float32]:
    """Logits f32 [T, vocab_size] after each token."""
    found = []
    for at, token in enumerate(TOKENS):
        tokens, position = np.array([[token]], np.int32), np.array([at], np.int32)
        (logits,) = package.run("main", tokens=tokens, position=position, **memory).values()
        found.append(logits[0])
    return np.stack(found).astype(np.float32, copy=False)


@pytest.mark.parametrize("family", [OWN, pytest.param("gemma3_text", marks=pytest.mark.slow)])
def test_the_delegate_is_the_whole_anchor(family: str, tmp_path: Path) -> None:
    source, memories = write_sample(family, tmp_path / "sample")
    out = tmp_path / "own.bundle"
    assert export(source, out, "--memory-dtype", "f32", memories=memories) == 0
    bundle = Bundle.open(out)
    (program,) = bundle.manifest.programs
    assert (program.engine, program.flavour, program.delegate) == ("executorch", "portable", "coreml")
    assert (program.max_prefill, program.dtype) == (1, "f16")

    decoder = load_inputs(Source.open(source, memories)).decoder
    path = embedded_package(bundle.path_of(program.path), tmp_path / "delegate")
    levels = load_file((memories or source) / "memories.safetensors")
    answers = []
    for nodes in ({}, {0: 0}, {1: 1, 2: 3}):
        blocks = {level: levels[f"level{level}"][node] for level, node in nodes.items()}
        given = {
            f"memory_{index}": blocks.get(level, torch.zeros(levels[f"level{level}"].shape[1:])).numpy()
            for index, (level, _) in enumerate(MEMORY.levels)
        }
        rows = None
        if blocks:
            rows = MemoryRows(torch.cat(list(blocks.values()), 2)[None], MEMORY.layers)
        with torch.inference_mode():
            wanted = decoder(torch.from_numpy(TOKENS)[None], rows)[0].numpy()
        answers.append(steps(Package(path), given))
        assert np.abs(answers[-1] - wanted).max() < TOLERANCE
    assert np.abs(answers[0] - answers[1]).max() > 5 * TOLERANCE
    assert np.abs(answers[1] - answers[2]).max() > 5 * TOLERANCE


def test_what_it_cannot_do_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, _ = write_sample(OWN, tmp_path / "kv", MemoryConfig(2, (2, 4), (0, 1), "kv"))
    assert export(source, tmp_path / "kv.bundle") == 1
    assert "memory of the kind kv" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.skipif(sys.platform == "darwin", reason="there it runs")
def test_elsewhere_it_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, _ = write_sample(OWN, tmp_path / "sample")
    out = tmp_path / "own.bundle"
    assert export(source, out, "--anchor-dtype", "8da4w") == 0
    assert Bundle.open(out).manifest.programs[0].dtype == "i4"
    capsys.readouterr()
    assert main(["compare", str(out), "--json"]) == 1
    rows = json.loads(capsys.readouterr().out)
    assert all("its delegate is Core ML" in row["reason"] for row in rows)
