"""Core ML packages, interpreted, against the torch reference: a prefill and then token by token, memory on and off."""

from __future__ import annotations

import importlib
import json
import sys
from itertools import combinations
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import coremltools as ct
import numpy as np
import numpy.typing as npt
import pytest
import torch
from families import save
from safetensors.torch import load_file
from torch import nn

from edge_export.coreml import GROUP, CoremlDecoder, StatefulDecoder, export_coreml
from edge_export.huggingface import load_decoder
from edge_export.memory import InputMemory
from edge_export.mil import Package
from edge_export.model import Decoder
from edge_export.openlm import from_anchor
from edge_pretrain.checkpoint import load as load_checkpoint
from edge_pretrain.model import MemoryRows
from edge_runtime.bundle import Bundle
from edge_runtime.cli.main import main
from edge_runtime.comparison import compare
from edge_runtime.engines import Engine
from edge_runtime.engines.portable import MemoryStates
from edge_runtime.pager import Pager
from edge_runtime.runtime import default_budget

# Of logits of about 1: fp16 keeps 11 bits, and a few hundred roundings come to this.
TOLERANCE = 0.04
TOKENS = np.random.default_rng(3).integers(3, 250, 20)
CALLS = (10, 1, 1, 5, 1, 1, 1)
ROWS, LAYERS, PREFILL = (8, 16), (1,), 12
SHAPES: list[tuple[int, ...]] = [(len(LAYERS), 3, rows, 32) for rows in ROWS]


def check(
    package: Path,
    decoder: Decoder,
    memory: list[npt.NDArray[np.float16]],
    layers: Any,
    stateful: bool = False,
) -> None:
    """The package's logits at the end of each call are the decoder's: without memory, with it, with another.

    stateful: memory is written into the states once, before the calls that read it, and nothing else clears them.
    """
    answers, opened = [], Package(package)
    for written, scale in enumerate((0, 1, -0.5)):
        level = [(scale * rows).astype(np.float16) for rows in memory]
        rows = torch.from_numpy(np.concatenate(level, 2).astype(np.float32))[None]
        with torch.inference_mode():
            wanted = decoder(torch.from_numpy(TOKENS)[None], MemoryRows(rows, layers))[0].numpy()
        feeds, at = {f"memory_{index}": values for index, values in enumerate(level)}, 0
        if stateful:
            # States are zeros to begin with.
            opened.states |= feeds if written else {}
            feeds = {}
        for count in CALLS:
            positions = np.arange(at, at + count, dtype=np.int32)
            tokens = TOKENS[None, at : at + count].astype(np.int32)
            name = "decode" if count == 1 else "prefill"
            found = opened.run(name, tokens=tokens, positions=positions, **feeds)["logits"]
            at += count
            assert found.dtype == np.float16
            assert np.abs(found[0] - wanted[at - 1]).max() < TOLERANCE
        answers.append(found)
    for one, other in combinations(answers, 2):
        assert np.abs(one - other).max() > 3 * TOLERANCE


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


def test_memory_in_states_is_read_by_both_functions_and_written_by_none(tmp_path: Path) -> None:
    save("gemma3-capped", tmp_path)
    decoder, package = load_decoder(tmp_path, 4096), tmp_path / "anchor.mlpackage"
    stateful = StatefulDecoder(decoder, InputMemory("ffn", LAYERS), SHAPES)
    export_coreml(stateful, [], PREFILL, "f16", package)
    check(package, decoder, random_memory(32), LAYERS, stateful=True)
    for description in ct.models.MLModel(str(package), skip_model_load=True).get_spec().description.functions:
        assert [one.name for one in description.input] == ["tokens", "positions"]
        states = {one.name: tuple(one.type.stateType.arrayType.shape) for one in description.state}
        assert {name: states[name] for name in ("memory_0", "memory_1")} == dict(
            zip(("memory_0", "memory_1"), SHAPES, strict=True)
        )
    for function in Package(package).functions.values():
        written = {
            operation.state.name
            for operation in function.operations
            if operation.op_type == "coreml_update_state"
        }
        assert written == {f"{kind}_{layer}" for kind in "kv" for layer in range(2)}


@pytest.fixture(scope="module")
def bundle(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    out = tmp_path_factory.mktemp("coreml") / "own.bundle"
    arguments = ["export", tiny_checkpoint, "-o", out, "--to", "coreml", "--routers", "static"]
    arguments += ["--max-prefill", PREFILL, "--flavour", "portable,stateful"]
    assert main([str(argument) for argument in arguments]) == 0
    return Bundle.open(out)


def test_the_bundle_of_our_own_anchor(bundle: Bundle, tiny_checkpoint: Path) -> None:
    for program, flavour in zip(bundle.manifest.programs, ("portable", "stateful"), strict=True):
        assert (program.engine, program.flavour, program.dtype) == ("coreml", flavour, "f16")
        package = bundle.path_of(program.path)
        assert package.is_dir()
        files = [path for path in package.rglob("*") if path.is_file()]
        assert {
            path.relative_to(bundle.directory).as_posix() for path in files
        } <= bundle.manifest.files.keys()
        assert bundle.bytes_of(program) == sum(path.stat().st_size for path in files)
    assert [finding for _, _, finding in bundle.verify() if finding] == []

    checkpoint = load_checkpoint(tiny_checkpoint)
    levels = load_file(tiny_checkpoint / "memories.safetensors")
    memory = [
        levels[f"level{level}"][0].numpy().astype(np.float16)
        for level, _ in checkpoint.memories.config.levels
    ]
    for program in bundle.manifest.programs:
        package, stateful = bundle.path_of(program.path), program.flavour == "stateful"
        check(
            package,
            from_anchor(checkpoint.anchor),
            memory,
            checkpoint.memories.config.layers,
            stateful=stateful,
        )


def test_both_functions_share_the_weights(bundle: Bundle) -> None:
    for path in bundle.directory.rglob("weight.bin"):
        # Beside them the file holds the tables of positions.
        assert path.stat().st_size < 1.2 * 2 * bundle.manifest.anchor.parameters


class _State:
    """Stands in for coremltools' MLState."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self.written: list[str] = []

    def write_state(self, name: str, value: npt.NDArray[Any]) -> None:
        assert value.dtype == np.float16
        self.written.append(name)
        self.values[name] = value.copy()


class _Model:
    """Stands in for coremltools' MLModel, which predicts on macOS alone: the interpreter computes."""

    made: list[_State] = []  # noqa: RUF012  # reset by the test

    def __init__(self, path: str, function_name: str) -> None:
        self._package, self._name = Package(Path(path)), function_name

    def make_state(self) -> _State:
        self.made.append(_State())
        return self.made[-1]

    def predict(self, feeds: dict[str, Any], state: _State) -> dict[str, Any]:
        self._package.states = state.values
        return self._package.run(self._name, **feeds)


def test_the_engine_of_macos_over_the_interpreter(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(_Model, "made", [])
    module = importlib.import_module("edge_runtime.engines.coreml")
    del sys.modules[
        "edge_runtime.engines.coreml"
    ]  # not by monkeypatch, which would put it back for other tests
    # The engine's alone: the interpreter reads packages with the real one.
    stub = SimpleNamespace(models=SimpleNamespace(MLModel=_Model))
    monkeypatch.setattr(module, "coremltools", stub)

    def opened(bundle: Bundle, threads: int, name: str) -> Engine:
        return cast(Engine, module.open_engine(bundle, threads, name.partition("/")[2]))

    rows = compare(bundle, 1, opened)
    kinds = {
        (flavour, memory) for flavour in ("portable", "stateful") for memory in ("none", "generic", "path")
    }
    assert {(row.flavour, row.memory) for row in rows} == kinds
    # The reference has memories in f32, the bank in f16.
    errors = [row.max_logit_error for row in rows]
    assert all(error is not None and error < 2 * TOLERANCE for error in errors), rows
    written = [state.written for state in _Model.made]
    # The stateful program's alone: without memory no write, with it one of each level, however many calls read it.
    fetched = sorted(name for names in written for name in names)
    assert fetched == sorted(2 * [f"memory_{index}" for index in range(3)])


def test_states_hold_what_was_fetched_last(bundle: Bundle) -> None:
    written: list[tuple[str, float]] = []
    memory = MemoryStates(bundle, lambda name, value: written.append((name, float(np.abs(value).max()))))
    assert memory.of(0) == []
    assert written == []
    paths = bundle.level_paths
    assert bundle.manifest.memory is not None
    pager = Pager(paths, default_budget(bundle.manifest.memory))
    with pager.fetch([(1, 0), (2, 1)]) as first, pager.fetch([(0, 0)]) as second:
        for lease in (first, first, second):
            assert memory.of(lease.handle) == []
        # Levels without a block are cleared: the old fetch's would be read on.
        there = [[size > 0 for _, size in written[at : at + 3]] for at in (0, 3)]
        assert there == [[False, True, True], [True, False, False]]
    assert memory.of(0) == []
    assert [size for _, size in written[6:]] == [0, 0, 0]


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
