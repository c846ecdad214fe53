"""The native engine against the torch reference, and what it does without torch and with damaged files."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from reference import PATHS, Logits, expected
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from edge_export.bundle import export_bundle
from edge_export.source import ExportConfig, Source
from edge_pretrain.checkpoint import Checkpoint, load
from edge_runtime.bundle import Bundle
from edge_runtime.cli.main import main
from edge_runtime.engines import Engine, open_engine
from edge_runtime.errors import (
    BadFormatError,
    ChecksumError,
    ContextOverflowError,
    EdgeRuntimeError,
    InvalidArgumentError,
    StaleHandleError,
    TruncatedError,
)
from edge_runtime.pager import Node, Pager

TOKENS = np.random.default_rng(3).integers(0, 300, 90)
CHUNKS = {"prefill": [90], "decode": [1] * 90, "mixed": [3, 17, 1, 40, 29]}
# Of a logit; they have a standard deviation of about 1.
TOLERANCES = {"f32": 1e-4, "f16": 1e-3}
# Of the logits' root mean square. What meets packed weights is rounded to 8 bits, which rows of only 128 values do not
# average out as those of a real anchor do.
PACKED_TOLERANCE = 0.2  # of the worst token: 0.17 where torch does the same rounding; 0.035 on average
DTYPES = ("f32", "f16", "i8", "i4")
NAME = "anchor.native.safetensors"


@pytest.fixture(scope="module")
def checkpoint(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny checkpoint with random gains: of ones nobody could tell where they are left out or mixed up."""
    copy = tmp_path_factory.mktemp("native") / "checkpoint"
    shutil.copytree(tiny_checkpoint, copy)
    path, generator = copy / "anchor.safetensors", torch.Generator().manual_seed(5)
    weights = load_file(path)
    for name, weight in weights.items():
        if weight.dim() == 1:
            weights[name] = 0.5 + torch.rand(weight.shape, generator=generator)
    save_file(weights, path)
    return copy


@pytest.fixture(scope="module")
def bundles(checkpoint: Path) -> dict[str, Bundle]:
    """A bundle a dtype of the anchor; the memory is f32."""
    root, found = checkpoint.parent, {}
    for dtype in DTYPES:
        config = ExportConfig(dtype, "f32", 16, None, ("static",), dtype, (("native", "paged"),))
        export_bundle(Source.open(checkpoint), root / dtype, config, lambda step: None)
        found[dtype] = Bundle.open(root / dtype)
    return found


def stored(file: Any, name: str, shape: torch.Size) -> torch.Tensor:
    """What a tensor of the file stands for (docs/native-format.md), read by another reader than the engine's."""
    values = file.get_tensor(name)
    if f"{name}.scales" not in set(file.keys()):
        return values.float()
    scales = file.get_tensor(f"{name}.scales").float()
    words = values.permute(0, 3, 1, 2, 4).flatten(-2)  # [blocks, 16, groups, bytes]
    if values.dtype == torch.int8:
        rows = words * scales[..., None, None]
    else:
        q = torch.cat([words & 15, words >> 4], dim=-1).float() - 8
        rows = q * scales.permute(0, 2, 1)[..., None]
    return rows.flatten(2).flatten(0, 1)[: shape[0], : shape[1]]


@pytest.fixture(scope="module")
def checkpoints(checkpoint: Path, bundles: dict[str, Bundle]) -> dict[str, Checkpoint]:
    """The reference of each dtype: with the matrices as the file has them."""
    found = {}
    for dtype, bundle in bundles.items():
        found[dtype] = load(checkpoint)
        anchor = found[dtype].anchor
        with safe_open(bundle.path_of(NAME), framework="pt") as file, torch.no_grad():
            matrices = {"embedding": anchor.tok_embeddings.weight}
            for index, block in enumerate(anchor.layers):
                attention, ffn, of = block.attention, block.feed_forward, f"layers.{index}."
                matrices[of + "attention_out"] = attention.wo.weight
                matrices |= {of + "gate": ffn.w1.weight, of + "up": ffn.w2.weight, of + "down": ffn.w3.weight}
                width, d = attention.wq.weight.shape
                qkv = stored(file, of + "qkv", torch.Size((3 * width, d)))
                for linear, rows in zip(
                    (attention.wq, attention.wk, attention.wv), qkv.chunk(3), strict=True
                ):
                    linear.weight.copy_(rows)
            for name, weight in matrices.items():
                weight.copy_(stored(file, name, weight.shape))
    return found


@pytest.fixture
def reference(checkpoints: dict[str, Checkpoint], dtype: str) -> Checkpoint:
    return checkpoints[dtype]


@pytest.fixture(params=DTYPES)
def dtype(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def engine(bundles: dict[str, Bundle], dtype: str) -> Engine:
    return open_engine(bundles[dtype], 2)


@pytest.fixture
def pager(bundles: dict[str, Bundle]) -> Pager:
    return Pager(bundles["f32"].level_paths, "10MB")


def assert_near(found: Logits, wanted: Logits, dtype: str) -> None:
    if dtype in TOLERANCES:
        assert np.abs(found - wanted).max() < TOLERANCES[dtype]
    else:
        assert np.sqrt(np.mean((found - wanted) ** 2) / np.mean(wanted**2)) < PACKED_TOLERANCE


@pytest.mark.parametrize("nodes", PATHS.values(), ids=PATHS.keys())
@pytest.mark.parametrize("chunks", CHUNKS.values(), ids=CHUNKS.keys())
def test_logits_equal_the_reference(
    reference: Checkpoint, engine: Engine, dtype: str, pager: Pager, nodes: list[Node], chunks: list[int]
) -> None:
    context, wanted = engine.new_context(), expected(reference, TOKENS, nodes)
    with pager.fetch(nodes) as lease:
        ends = np.cumsum(chunks)
        found = [
            context.forward(TOKENS[end - count : end], lease.handle if nodes else 0)
            for count, end in zip(chunks, ends, strict=True)
        ]
    # All positions together: the worst of 90 says more of the draw than of the engine.
    assert_near(np.stack(found), wanted[ends - 1], dtype)


@pytest.mark.parametrize(("dtype", "error"), [("i8", 0.03), ("i4", 0.3)])
def test_quantised_anchors_are_near_the_whole_one(
    checkpoints: dict[str, Checkpoint], dtype: str, error: float
) -> None:
    wanted, found = expected(checkpoints["f32"], TOKENS, [])[-1], expected(checkpoints[dtype], TOKENS, [])[-1]
    assert np.abs(found - wanted).std() / wanted.std() < error


def test_bits_do_not_depend_on_threads_or_calls(bundles: dict[str, Bundle], pager: Pager, dtype: str) -> None:
    found = set()
    with pager.fetch(PATHS["all levels"]) as lease:
        for threads in (1, 2, 3, 5):
            for chunks in CHUNKS.values():
                context, start = open_engine(bundles[dtype], threads).new_context(), 0
                for count in chunks:
                    logits = context.forward(TOKENS[start : start + count], lease.handle)
                    start += count
                found.add(logits.tobytes())
    assert len(found) == 1


def test_contexts_do_not_share_their_cache(reference: Checkpoint, engine: Engine, dtype: str) -> None:
    one, other, wanted = engine.new_context(), engine.new_context(), expected(reference, TOKENS, [])
    one.forward(TOKENS[:30], 0)
    other.forward(TOKENS[10:40], 0)
    assert_near(one.forward(TOKENS[30:], 0), wanted[-1], dtype)


def test_overflow_is_refused_and_appends_nothing(engine: Engine) -> None:
    context = engine.new_context()
    context.forward(TOKENS, 0)
    with pytest.raises(ContextOverflowError, match="90 tokens after 90"):
        context.forward(TOKENS, 0)
    assert context.position == 90
    context.forward(TOKENS[:6], 0)
    assert context.position == context.context_length == 96
    context.reset()
    assert context.position == 0


@pytest.mark.parametrize("token", [-1, 320])
def test_an_id_beyond_the_vocabulary_is_refused(engine: Engine, token: int) -> None:
    with pytest.raises(InvalidArgumentError, match=f"token {token}"):
        engine.new_context().forward(np.array([1, token]), 0)


def test_a_released_lease_is_refused_and_the_context_goes_on(
    reference: Checkpoint, engine: Engine, dtype: str, pager: Pager
) -> None:
    context = engine.new_context()
    lease = pager.fetch([(1, 2)])
    handle = lease.handle
    lease.release()
    with pytest.raises(StaleHandleError):
        context.forward(TOKENS, handle)
    assert context.position == 0
    assert_near(context.forward(TOKENS, 0), expected(reference, TOKENS, [])[-1], dtype)


def test_damage_in_a_block_surfaces_as_the_core_reports_it(
    bundles: dict[str, Bundle], engine: Engine, tmp_path: Path
) -> None:
    source = Path(bundles["f32"].level_paths[1][0])
    damaged = tmp_path / source.name
    data = bytearray(source.read_bytes())
    data[-10_000] ^= 1  # in the last block, whose stride is a page; the tables after it are a few bytes
    damaged.write_bytes(data)
    pager = Pager([[damaged]], "10MB")
    with pager.fetch([(1, 3)]) as lease, pytest.raises(ChecksumError, match=r"level1\.safetensors.*node 3"):
        engine.new_context().forward(TOKENS, lease.handle)


def test_the_kv_cache_is_as_large_as_it_says(bundles: dict[str, Bundle]) -> None:
    values = 2 * 4 * 2 * 32 * 96
    assert open_engine(bundles["f16"], 1).kv_bytes == 4 * values
    assert open_engine(bundles["i4"], 1).new_context().kv_bytes == 2 * values


def test_the_file_is_safetensors(bundles: dict[str, Bundle], checkpoints: dict[str, Checkpoint]) -> None:
    bundle = bundles["f16"]
    entry = bundle.manifest.programs[0]
    assert (entry.engine, entry.path, entry.dtype) == ("native", NAME, "f16")
    assert bundle.manifest.files[NAME].covers == "file"
    assert [finding for _, _, finding in bundle.verify() if finding] == []
    with safe_open(bundle.path_of(NAME), framework="numpy") as file:
        down = file.get_tensor("layers.3.down")
        assert file.metadata() == {"format": "edge-runtime.native", "version": "2"}
    w3 = checkpoints["f32"].anchor.state_dict()["layers.3.feed_forward.w3.weight"].numpy()
    np.testing.assert_array_equal(down, w3.astype(np.float16))


def damaged(bundle: Bundle, path: Path, change: str) -> Path:
    """The anchor's file, whose size is as before where the damage is not a cut."""
    data = bytearray(bundle.path_of(NAME).read_bytes())
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    if change == "cut":
        data = data[:-100]
    elif change == "cut in the header":
        data = data[:200]
    elif change == "empty":
        data = bytearray()
    elif change == "no header":
        data[:64] = bytes(64)
    elif change == "another format":
        header["__metadata__"]["format"] = "other"
    elif change == "a later version":
        header["__metadata__"]["version"] = "3"
    elif change == "a missing tensor":
        header["layers.1.donw"] = header.pop("layers.1.down")
    elif change == "another shape":
        header["embedding"]["shape"].reverse()
    elif change == "a gain in another dtype":
        header["norm"] |= {"dtype": "F16", "shape": [128]}
    text = json.dumps(header).encode()
    if change not in ("cut", "cut in the header", "empty", "no header"):
        data[8 : 8 + length] = text.ljust(length)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ("cut", TruncatedError, "bytes of data"),
        ("cut in the header", TruncatedError, "ends inside its header"),
        ("empty", TruncatedError, "empty"),
        ("no header", BadFormatError, "header"),
        ("another format", BadFormatError, "not a native anchor"),
        ("a later version", EdgeRuntimeError, "update edge-runtime"),
        ("a missing tensor", BadFormatError, r"lacks the tensor 'layers\.1\.down'"),
        ("another shape", BadFormatError, "'embedding' has another dtype or shape"),
        ("a gain in another dtype", BadFormatError, "'norm'"),
    ],
)
def test_a_damaged_file_is_one_line(
    bundles: dict[str, Bundle], tmp_path: Path, change: str, error: type[EdgeRuntimeError], message: str
) -> None:
    copy = tmp_path / "copy.bundle"
    shutil.copytree(bundles["f32"].directory, copy)
    bundle = Bundle.open(copy)
    damaged(bundles["f32"], copy / NAME, change)
    with pytest.raises(error, match=message) as caught:
        open_engine(bundle, 2)
    assert NAME in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_changed_byte_is_found_by_verify(bundles: dict[str, Bundle], tmp_path: Path) -> None:
    copy = tmp_path / "copy.bundle"
    shutil.copytree(bundles["f32"].directory, copy)
    data = bytearray((copy / NAME).read_bytes())
    data[-5] ^= 1
    (copy / NAME).write_bytes(data)
    assert [path for path, _, finding in Bundle.open(copy).verify() if finding] == [NAME]


def test_a_prompt_is_answered_where_nothing_else_is_installed(bundles: dict[str, Bundle]) -> None:
    code = (
        "import sys\n"
        "for name in ('torch', 'executorch', 'edge_runtime._executorch', 'transformers'): sys.modules[name] = None\n"
        "from edge_runtime.session import Session\n"
        "with Session.open(sys.argv[1]) as session:\n"
        "    print(''.join(session.generate('Radon. Radon is a noble gas.', max_tokens=4, stop=[])))\n"
        "    assert session.stats.memory == 'fetched' and session.stats.bytes_read > 0\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(bundles["i4"].directory)], check=True, capture_output=True, text=True
    )
    assert done.stdout.strip()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--to", "executorch", "--anchor-dtype", "f16"], "executorch has f32, int8, 8da4w"),
        (["--to", "native,tensorflow"], "engines are executorch, native, onnx"),
    ],
)
def test_what_an_engine_does_not_have_is_one_line(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    assert main(["export", str(checkpoint), "-o", str(tmp_path / "out.bundle"), *options]) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out.bundle").exists()


def test_export_speaks_either_engines_names_of_a_dtype(checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.bundle"
    arguments = ["--to", "native", "--anchor-dtype", "8da4w", "--routers", "static"]
    assert main(["export", str(checkpoint), "-o", str(out), *arguments]) == 0
    assert Bundle.open(out).program("native", "paged").dtype == "i4"
