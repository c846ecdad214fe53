"""From a Hugging Face folder to a bundle, and its programs against the reference, memory in every combination."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from families import save
from safetensors.torch import load_file, save_file

from edge_export.embedder import export_onnx_embedder
from edge_export.huggingface import load_decoder
from edge_export.model import Decoder
from edge_pretrain.embed import EMBEDDER_ID, MiniLM
from edge_pretrain.memories import MemoryConfig
from edge_pretrain.model import MemoryRows
from edge_runtime import _core
from edge_runtime.bank import LevelReader
from edge_runtime.bundle import Bundle
from edge_runtime.cli.main import main
from edge_runtime.comparison import compare
from edge_runtime.embedders import open_embedder
from edge_runtime.engines import load, open_engine
from edge_runtime.engines.portable import MemoryInputs
from edge_runtime.errors import BusyError, ContextOverflowError, StaleHandleError
from edge_runtime.pager import Node, Pager
from edge_runtime.session import Session
from edge_runtime.text import read_tokenizer

TOLERANCE = 1e-4
TOKENS = np.random.default_rng(3).integers(3, 250, 40)
MEMORY = MemoryConfig(2, (8, 16), (1,))
PATHS: dict[str, list[Node]] = {
    "none": [],
    "one level": [(2, 3)],
    "all levels": [(1, 1), (2, 2)],
    "generic": [(0, 0)],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An anchor with sliding windows, two ropes, QK-norm and sandwich norms, and memories for it."""
    root = tmp_path_factory.mktemp("hf")
    save("gemma3", root / "anchor")
    memories, generator = root / "memories", torch.Generator().manual_seed(1)
    memories.mkdir()
    config = {"embedder": {"id": EMBEDDER_ID}, "memory": MEMORY.to_checkpoint()}
    (memories / "config.json").write_text(json.dumps(config))
    blocks = {
        f"level{level}": 0.2 * torch.randn(2**level, 1, 3, rows, 32, generator=generator)
        for level, rows in MEMORY.levels
    }
    save_file(blocks, memories / "memories.safetensors")
    random = np.random.default_rng(0)
    centroids = [random.standard_normal((2**level, 384)).astype(np.float32) for level in (1, 2)]
    documents = [np.full(2**level, 5, np.int32) for level in (1, 2)]
    _core.write_tree(str(memories / "tree.safetensors"), 2, centroids, documents)
    return root


@pytest.fixture(scope="module")
def bundle(folder: Path) -> Bundle:
    out = folder / "gemma.bundle"
    arguments = ["export", folder / "anchor", "--memory", folder / "memories", "-o", out]
    arguments += [
        "--to",
        "onnx,executorch,native",
        "--flavour",
        "paged,portable",
        "--memory-dtype",
        "f32",
        "--anchor-dtype",
        "f32",
        "--routers",
        "minilm-onnx",
    ]
    assert main([str(argument) for argument in arguments]) == 0
    return Bundle.open(out)


@pytest.fixture(scope="module")
def reference(folder: Path) -> Decoder:
    return load_decoder(folder / "anchor", 4096)


def expected(folder: Path, reference: Decoder, nodes: list[Node]) -> npt.NDArray[np.float32]:
    memory = None
    if nodes:
        levels = load_file(folder / "memories/memories.safetensors")
        rows = torch.cat([levels[f"level{level}"][node] for level, node in nodes], dim=2)
        memory = MemoryRows(rows[None], MEMORY.layers)
    with torch.inference_mode():
        found: npt.NDArray[np.float32] = reference(torch.from_numpy(TOKENS)[None], memory)[0].numpy()
    return found


@pytest.mark.parametrize("nodes", PATHS.values(), ids=PATHS.keys())
@pytest.mark.parametrize("engine", ["executorch/paged", "executorch/portable", "onnx", "native"])
def test_programs_equal_the_reference(
    folder: Path, bundle: Bundle, reference: Decoder, engine: str, nodes: list[Node]
) -> None:
    context, wanted = open_engine(bundle, 2, engine).new_context(), expected(folder, reference, nodes)
    with Pager(bundle.level_paths, "1MB").fetch(nodes) as lease:
        at = 0
        for count in (17, 1, 1, 12, 1, 8):
            logits = context.forward(TOKENS[at : at + count], lease.handle if nodes else 0)
            at += count
            assert np.abs(logits - wanted[at - 1]).max() < TOLERANCE
    if nodes:
        assert np.abs(wanted - expected(folder, reference, [])).max() > 100 * TOLERANCE


def test_portable_programs_keep_no_lease(bundle: Bundle) -> None:
    pager, context = Pager(bundle.level_paths, "1MB"), load("onnx").open_engine(bundle, 2).new_context()
    lease = pager.fetch([(1, 0)])
    context.forward(TOKENS, lease.handle)
    held = _core.leased_blocks(lease.handle)
    with pytest.raises(BusyError):
        pager.fetch([(1, 1)], replacing=lease)
    del held
    old = lease.handle
    pager.fetch([(1, 1)], replacing=lease)
    with pytest.raises(StaleHandleError):
        context.forward(TOKENS[:1], old)
    assert context.position == len(TOKENS)
    with pytest.raises(ContextOverflowError, match="40 tokens after 40"):
        context.forward(TOKENS, 0)


@pytest.mark.parametrize("dtype", ["f16", "i8"])
def test_memory_is_passed_in_place_or_dequantised(
    monkeypatch: pytest.MonkeyPatch, bundle: Bundle, folder: Path, dtype: str, tmp_path: Path
) -> None:
    def no_programs(*_: object) -> list[object]:
        return []

    monkeypatch.setattr("edge_export.programs.write_programs", no_programs)
    monkeypatch.setattr(
        "edge_export.embedder.export_onnx_embedder", lambda *given: given[-1].write_bytes(b"")
    )
    out = tmp_path / "other.bundle"
    arguments = ["export", folder / "anchor", "--memory", folder / "memories", "-o", out]
    arguments += ["--memory-dtype", dtype, "--routers", "minilm-onnx"]
    assert main([str(argument) for argument in arguments]) == 0
    other = Bundle.open(out)
    inputs = MemoryInputs(other)
    with Pager(other.level_paths, "1MB").fetch([(2, 3)]) as lease:
        found = inputs.of(lease.handle)
        assert [array.shape[2] for array in found] == [0, 0, 16]
        np.testing.assert_array_equal(found[2], LevelReader(other.level_paths[2][0]).read(3))
        assert np.shares_memory(found[2], lease.view(2)) == (dtype == "f16")
        again = inputs.of(lease.handle)[2]
        assert np.shares_memory(found[2], again)


def test_the_onnx_embedder_equals_minilm(bundle: Bundle) -> None:
    found = open_embedder(bundle, "minilm-onnx", 2).embed("Its atomic number is")
    assert np.abs(found - MiniLM().embed(["Its atomic number is"])[0]).max() < 1e-5


def test_sessions_answer_alike_through_every_engine(bundle: Bundle) -> None:
    texts = set()
    for engine in ("onnx", "executorch", "native"):
        with Session.open(bundle.directory, engine=engine) as session:
            texts.add("".join(session.generate("Hafnium is a metal.", max_tokens=12)))
            assert len(session.stats.path) == 2
            assert session.stats.bytes_read > 0
    assert len(texts) == 1


def test_compare_says_how_far_each_program_is(bundle: Bundle, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", str(bundle.directory), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {(row["engine"], row["flavour"], row["memory"]) for row in rows} == {
        (engine, flavour, memory)
        for engine, flavour in (
            ("executorch", "paged"),
            ("executorch", "portable"),
            ("onnx", "portable"),
            ("native", "paged"),
        )
        for memory in ("none", "generic", "path")
    }
    for row in rows:
        assert row["reason"] is None
        assert row["max_logit_error"] < TOLERANCE
        assert row["agreement"] == 1


def test_compare_sees_another_reference(bundle: Bundle, tmp_path: Path) -> None:
    copy = tmp_path / "copy.bundle"
    shutil.copytree(bundle.directory, copy)
    tensors = load_file(copy / "reference.safetensors")
    tensors["logits.path"][3, 7] += 50
    save_file(tensors, copy / "reference.safetensors")
    rows = [row for row in compare(Bundle.open(copy), 2) if row.memory == "path"]
    assert [round(row.max_logit_error or 0) for row in rows] == [50, 50, 50, 50]
    assert all(row.agreement == 1 - 1 / 16 for row in rows)


def test_the_onnx_embedder_in_int8_is_small_and_close(tmp_path: Path) -> None:
    import onnxruntime

    path, minilm = tmp_path / "minilm-onnx-int8.onnx", MiniLM()
    export_onnx_embedder(minilm, True, path)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    assert path.stat().st_size < 25_000_000
    text = "Its atomic number is"
    tokenizer = read_tokenizer(minilm.tokenizer_json)
    tokenizer.no_padding()
    tokens = np.array([tokenizer.encode(text).ids], np.int64)
    feeds = {"token_ids": tokens, "mask": np.ones_like(tokens)}
    found = onnxruntime.InferenceSession(path).run(None, feeds)[0][0]
    assert found @ minilm.embed([text])[0] > 0.985
