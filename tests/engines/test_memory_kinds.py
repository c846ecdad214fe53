"""Every type of memory from a checkpoint to portable programs, which say what the pretraining's own model says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from reference import expected

from edge_bench.quantised import with_bank
from edge_export.inputs import load_inputs
from edge_export.memory import InputMemory
from edge_export.portable import PortableDecoder
from edge_export.samples import OWN, write_sample
from edge_export.source import Source
from edge_pretrain.checkpoint import Checkpoint
from edge_pretrain.checkpoint import load as load_checkpoint
from edge_pretrain.memories import MemoryConfig
from edge_pretrain.memory_types import TYPES
from edge_runtime.bank import LevelReader
from edge_runtime.bundle import Bundle
from edge_runtime.cli.main import main
from edge_runtime.comparison import compare
from edge_runtime.engines import open_engine
from edge_runtime.errors import InvalidArgumentError, UnsupportedError
from edge_runtime.pager import Node, Pager

TOLERANCE = 1e-4
TOKENS = np.random.default_rng(3).integers(0, 256, 30)
CHUNKS = [17, 1, 1, 8, 1, 1, 1]
PATHS: dict[str, list[Node]] = {
    "none": [],
    "one level": [(2, 3)],
    "all levels": [(1, 1), (2, 2)],
    "generic": [(0, 0)],
}
# A program takes seconds to lower: KV memory, which is the furthest from FFN memory, always.
KINDS = [
    pytest.param(kind, marks=() if kind == "kv" else pytest.mark.slow) for kind in TYPES if kind != "ffn"
]


def sample(folder: Path, kind: str) -> Path:
    return write_sample(OWN, folder, MemoryConfig(2, (8, 16), (1,), kind))[0]


def export(source: Path, out: Path, *options: str) -> int:
    return main(
        ["export", str(source), "-o", str(out), "--routers", "static", "--max-prefill", "16", *options]
    )


@pytest.mark.parametrize("kind", TYPES)
def test_the_portable_module_step_by_step(kind: str, tmp_path: Path) -> None:
    """What is traced, run by torch: with a cache, levels apart, and rows that are not there."""
    source = sample(tmp_path, kind)
    checkpoint, inputs = load_checkpoint(source, TYPES), load_inputs(Source.open(source), 4096)
    module = PortableDecoder(inputs.decoder, InputMemory(inputs.memory_kind, inputs.memory_layers))
    levels = [level for level, _ in checkpoint.memories.config.levels]
    for nodes in PATHS.values():
        there = dict(nodes)
        memory = [
            checkpoint.memories.levels[level][there[level]]
            if level in there
            else torch.zeros(layers, parts, 0, width)
            for level, (layers, parts, _, width) in zip(levels, inputs.memory_shapes, strict=True)
        ]
        wanted = expected(checkpoint, TOKENS, nodes)
        caches, start = [torch.zeros(1, 4, 40, 16) for _ in range(4)], 0
        for count in CHUNKS:
            with torch.no_grad():
                tokens = torch.from_numpy(TOKENS[None, start : start + count])
                logits, caches = module(tokens, torch.tensor([start]), caches, memory)
            start += count
            assert np.abs(logits[0].numpy() - wanted[start - 1]).max() < TOLERANCE


@pytest.fixture(scope="module", params=KINDS)
def bundle(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Bundle, Checkpoint]:
    folder = tmp_path_factory.mktemp(request.param)
    source, out = sample(folder, request.param), folder / "sample.bundle"
    assert (
        export(source, out, "--to", "executorch,onnx", "--flavour", "portable", "--memory-dtype", "f32") == 0
    )
    return Bundle.open(out), load_checkpoint(source, TYPES)


def test_the_bank_says_which_kind_it_is_and_holds_the_checkpoints(
    bundle: tuple[Bundle, Checkpoint],
) -> None:
    opened, checkpoint = bundle
    config, memory = checkpoint.memories.config, opened.manifest.memory
    assert memory is not None
    assert memory.kind == config.kind
    assert [finding for _, _, finding in opened.verify() if finding] == []
    for level, _ in config.levels:
        reader = LevelReader(opened.path_of(f"memory/level{level}.safetensors"))
        assert reader.spec.kind == config.kind
        assert tuple(name for name, _, _ in reader.spec.tensors) == config.type.tensors
        for node in reader.nodes():
            np.testing.assert_array_equal(
                reader.read(int(node)), checkpoint.memories.levels[level][int(node)].numpy()
            )


@pytest.mark.parametrize("engine", ["executorch/portable", "onnx/portable"])
def test_programs_equal_the_pretraining_model(bundle: tuple[Bundle, Checkpoint], engine: str) -> None:
    opened, checkpoint = bundle
    program, found = open_engine(opened, 2, engine), []
    pager = Pager(opened.level_paths, "10MB")
    for nodes in PATHS.values():
        wanted = expected(checkpoint, TOKENS, nodes)
        found.append(wanted[-1])
        for chunks in ([30], CHUNKS):
            context, start = program.new_context(), 0
            with pager.fetch(nodes) as lease:
                for count in chunks:
                    logits = context.forward(TOKENS[start : start + count], lease.handle if nodes else 0)
                    start += count
                    assert np.abs(logits - wanted[start - 1]).max() < TOLERANCE
    # Otherwise a program that ignores its memory would pass.
    for index, one in enumerate(found):
        assert all(np.abs(one - other).max() > 100 * TOLERANCE for other in found[:index])


def test_compare_finds_no_difference(bundle: tuple[Bundle, Checkpoint]) -> None:
    rows = list(compare(bundle[0], 2))
    assert len(rows) == 6
    for row in rows:
        assert row.reason is None
        assert row.max_logit_error is not None
        assert row.max_logit_error < TOLERANCE


@pytest.mark.parametrize("dtype", ["f16", "bf16", "i8", "i4"])
def test_smaller_banks_are_read_by_the_same_program(
    bundle: tuple[Bundle, Checkpoint], dtype: str, tmp_path: Path
) -> None:
    """The answer is the reference's with the values that the bank holds."""
    small = with_bank(bundle[0], tmp_path / "small.bundle", dict.fromkeys((0, 1, 2), dtype))
    check_bank(small, bundle[1])


@pytest.mark.slow
def test_a_half_precision_bank_is_given_as_it_lies(bundle: tuple[Bundle, Checkpoint], tmp_path: Path) -> None:
    source, out = bundle[0].directory.parent / "memories", tmp_path / "half.bundle"
    assert export(source, out, "--to", "onnx", "--memory-dtype", "f16") == 0
    check_bank(Bundle.open(out), bundle[1])


def check_bank(small: Bundle, checkpoint: Checkpoint) -> None:
    rounded = dict(checkpoint.memories.levels)
    for level in (1, 2):
        reader = LevelReader(small.path_of(f"memory/level{level}.safetensors"))
        rounded[level] = torch.stack([torch.from_numpy(reader.read(node)) for node in range(2**level)])
    wanted = _with_levels(checkpoint, rounded)
    for engine in small.manifest.programs:
        opened = open_engine(small, 2, f"{engine.engine}/{engine.flavour}")
        with Pager(small.level_paths, "10MB").fetch(PATHS["all levels"]) as lease:
            logits = opened.new_context().forward(TOKENS, lease.handle)
        assert np.abs(logits - wanted).max() < TOLERANCE


def _with_levels(checkpoint: Checkpoint, levels: dict[int, torch.Tensor]) -> npt.NDArray[np.float32]:
    kept = checkpoint.memories.levels
    checkpoint.memories.levels = levels
    try:
        return expected(checkpoint, TOKENS, PATHS["all levels"])[-1]
    finally:
        checkpoint.memories.levels = kept


@pytest.mark.parametrize("kind", TYPES)
def test_the_default_program_is_the_first_that_reads_the_memory(kind: str, tmp_path: Path) -> None:
    source = Source.open(sample(tmp_path, kind))
    wanted = ("native", "paged") if kind == "ffn" else ("executorch", "portable")
    assert source.default_program() == wanted
    assert source.default_program(("portable",)) == ("executorch", "portable")
    with pytest.raises(
        InvalidArgumentError, match=r"--flavour stateful: name an engine that has it with --to"
    ):
        source.default_program(("stateful",))


@pytest.mark.slow
def test_memory_that_native_does_not_read_is_exported_for_an_engine_that_does(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.bundle"
    assert export(sample(tmp_path, "kv"), out) == 0
    assert [(one.engine, one.flavour) for one in Bundle.open(out).manifest.programs] == [
        ("executorch", "portable")
    ]
    assert "memory of the kind kv: a program for executorch/portable" in capsys.readouterr().err


@pytest.mark.parametrize("program", ["native/paged", "executorch/paged", "coreml/portable"])
def test_programs_that_read_ffn_memory_alone_are_refused_by_name(
    program: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, (engine, flavour) = sample(tmp_path, "kv"), program.split("/")
    assert export(source, tmp_path / "out.bundle", "--to", engine, "--flavour", flavour) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert f"memory of the kind kv: {program} reads ffn" in error
    assert "executorch/portable, onnx/portable" in error
    assert not (tmp_path / "out.bundle").exists()


def test_a_bundle_that_claims_more_is_refused_when_it_is_opened(bundle: tuple[Bundle, Checkpoint]) -> None:
    manifest = bundle[0].manifest
    programs = tuple(replace(program, flavour="paged") for program in manifest.programs)
    claiming, kind = (
        Bundle(bundle[0].directory, replace(manifest, programs=programs)),
        bundle[1].memories.config.kind,
    )
    with pytest.raises(UnsupportedError, match=f"memory of the kind {kind}: executorch/paged reads ffn"):
        open_engine(claiming, 2, "executorch/paged")


def test_lora_of_keys_needs_as_many_keys_as_heads(tmp_path: Path) -> None:
    anchor, memories = write_sample("llama", tmp_path, MemoryConfig(2, (8, 16), (1,), "lora_qk"))
    with pytest.raises(UnsupportedError, match="heads share 2"):
        load_inputs(Source.open(anchor, memories), 4096)


def test_a_program_of_an_older_exporter_is_refused(bundle: tuple[Bundle, Checkpoint], tmp_path: Path) -> None:
    """Its caches were inputs of the tokens so far, which the caller appended to."""
    tokens, same = (
        helper.make_tensor_value_info(name, TensorProto.INT64, [1]) for name in ("tokens", "same")
    )
    graph = helper.make_graph([helper.make_node("Identity", ["tokens"], ["same"])], "old", [tokens], [same])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(model, tmp_path / "old.onnx")
    manifest = bundle[0].manifest
    programs = tuple(
        replace(one, path=str(tmp_path / "old.onnx")) for one in manifest.programs if one.engine == "onnx"
    )
    old = Bundle(bundle[0].directory, replace(manifest, programs=programs))
    with pytest.raises(UnsupportedError, match=r"old\.onnx: a program of an older exporter"):
        open_engine(old, 2, "onnx")
