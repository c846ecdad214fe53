"""The native engine over anchors of every family, against transformers' own forward and, with memory, the reference."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pytest
import torch
from families import CASES, save

from edge_export.huggingface import load_decoder
from edge_export.model import Decoder
from edge_export.native import write_native
from edge_pretrain.model import MemoryRows
from edge_runtime import _core
from edge_runtime.cli.main import main
from edge_runtime.errors import UnsupportedError
from edge_runtime.pager import Lease, Pager
from edge_runtime.session import Session

Array = npt.NDArray[np.float32]
# Longer than the sliding window (8), than the length that RoPE scaling starts from (16), and than what goes through the
# layers together (128).
LENGTH = 150
TOKENS = np.random.default_rng(3).integers(0, 320, LENGTH)
CHUNKS = {"prefill": [LENGTH], "step by step": [1] * LENGTH, "mixed": [20, *[1] * 15, 7, 60, 48]}
TOLERANCES = {"f32": 1e-4, "f16": 1e-3}
# Of the logits' root mean square, for rows of 32 to 64 values; see tests/engines/test_native.py.
PACKED_TOLERANCES = {"i8": 0.15, "i4": 0.6}
FANOUT, MEMORY_LAYERS, ROWS = 2, (0, 1), 16


class Sample(NamedTuple):
    folder: Path
    model: Any  # of transformers
    decoder: Decoder
    memory: MemoryRows
    lease: Lease


def rounded(module: torch.nn.Module, dtype: str) -> None:
    """The matrices as a file in f16 has them; gains and biases stay."""
    if dtype == "f16":
        with torch.no_grad():
            for parameter in module.parameters():
                if parameter.ndim > 1:
                    parameter.copy_(parameter.half().float())


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=TOLERANCES)
def dtype(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def sample(case: str, tmp_path: Path) -> Sample:
    """The anchor, with a context for all tokens, and a block of memory for both of its layers."""
    model = save(case, tmp_path, max_position_embeddings=160)
    rows = 0.2 * torch.randn(2, 3, ROWS, 32, generator=torch.Generator().manual_seed(1))
    level = tmp_path / "level1.safetensors"
    writer = _core.LevelWriter(str(level), 1, FANOUT, "f32", 32, ROWS, list(MEMORY_LAYERS), 1)
    writer.append(1, rows.numpy())
    writer.finish()
    lease = Pager([[level]], "1MB").fetch([(1, 1)])
    return Sample(tmp_path, model, load_decoder(tmp_path, 4096), MemoryRows(rows[None], MEMORY_LAYERS), lease)


def native(sample: Sample, dtype: str, threads: int = 2) -> _core.NativeModel:
    path, anchor = sample.folder / f"{dtype}.safetensors", sample.decoder.config.to_manifest()
    write_native(sample.decoder, anchor, dtype, path)
    return _core.NativeModel(str(path), json.dumps(anchor), MEMORY_LAYERS, threads)


def answers(model: _core.NativeModel, chunks: list[int], handle: int) -> Array:
    """The logits after each chunk."""
    context, found, start = model.new_context(), [], 0
    for count in chunks:
        found.append(context.forward(TOKENS[start : start + count], handle))
        start += count
    return np.stack(found)


def expected(module: Any, *memory: MemoryRows) -> Array:
    """Logits [T, vocab_size] of transformers' model or of ours."""
    with torch.inference_mode():
        logits = module(torch.from_numpy(TOKENS)[None], *memory)
    found: Array = getattr(logits, "logits", logits)[0].numpy()
    return found


def test_logits_are_those_of_transformers(sample: Sample, dtype: str) -> None:
    for module in (sample.model, sample.decoder):
        rounded(module, dtype)
    model, wanted = native(sample, dtype), expected(sample.model)
    for chunks in CHUNKS.values():
        ends = np.cumsum(chunks) - 1
        assert np.abs(answers(model, chunks, 0) - wanted[ends]).max() < TOLERANCES[dtype]


def test_logits_with_memory_are_those_of_the_reference(sample: Sample, dtype: str) -> None:
    rounded(sample.decoder, dtype)
    model, wanted = native(sample, dtype), expected(sample.decoder, sample.memory)
    assert np.abs(wanted - expected(sample.decoder)).max() > 0.1
    for chunks in CHUNKS.values():
        ends = np.cumsum(chunks) - 1
        found = answers(model, chunks, sample.lease.handle)
        assert np.abs(found - wanted[ends]).max() < TOLERANCES[dtype]


@pytest.mark.parametrize("packed", PACKED_TOLERANCES)
def test_packed_anchors_are_near_the_whole_one(sample: Sample, packed: str) -> None:
    wanted = expected(sample.decoder, sample.memory)
    found = answers(native(sample, packed), [1] * LENGTH, sample.lease.handle)
    error = np.sqrt(np.mean((found - wanted) ** 2) / np.mean(wanted**2))
    assert error < PACKED_TOLERANCES[packed]


def test_bits_do_not_depend_on_threads_or_calls(sample: Sample) -> None:
    for packed in ("f32", "i4"):
        found = {
            answers(native(sample, packed, threads), chunks, sample.lease.handle)[-1].tobytes()
            for threads in (1, 2, 3)
            for chunks in CHUNKS.values()
        }
        assert len(found) == 1


def test_from_a_folder_to_an_answered_prompt(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save(case, tmp_path / "anchor")
    out = tmp_path / "out.bundle"
    dtype = ["--anchor-dtype", "f32"]
    assert main(["export", str(tmp_path / "anchor"), "-o", str(out), "--to", "native", *dtype]) == 0
    with Session.open(out, engine="native") as session:
        assert "".join(session.generate("Hafnium is a metal.", max_tokens=5, stop=[])) is not None
        assert session.stats.generated_tokens > 0
    capsys.readouterr()
    assert main(["compare", str(out), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["engine"] for row in rows] == ["native"]
    assert all(row["max_logit_error"] < TOLERANCES["f32"] for row in rows)


def test_an_option_that_the_engine_does_not_know_is_refused_by_name(tmp_path: Path) -> None:
    save("qwen3", tmp_path)
    decoder = load_decoder(tmp_path, 4096)
    anchor = decoder.config.to_manifest()
    anchor["options"]["attention_sinks"] = 4
    with pytest.raises(UnsupportedError, match=r"anchor\.options\.attention_sinks"):
        write_native(decoder, anchor, "f32", tmp_path / "anchor.safetensors")
    assert not (tmp_path / "anchor.safetensors").exists()
