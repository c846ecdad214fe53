"""The paged program against the torch reference, and how its failures reach Python."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from reference import PATHS, expected

from edge_pretrain.checkpoint import Checkpoint, load
from edge_pretrain.embed import MiniLM
from edge_runtime.bundle import Bundle
from edge_runtime.embedders import open_embedder
from edge_runtime.engines import Engine, open_engine
from edge_runtime.errors import BadFormatError, ChecksumError, ContextOverflowError, StaleHandleError
from edge_runtime.pager import Node, Pager

TOLERANCE = 1e-4
TOKENS = np.random.default_rng(3).integers(0, 300, 50)


@pytest.fixture(scope="module")
def reference(tiny_checkpoint: Path) -> Checkpoint:
    return load(tiny_checkpoint)


@pytest.fixture(scope="module")
def bundle(tiny_bundle: Path) -> Bundle:
    return Bundle.open(tiny_bundle)


@pytest.fixture(scope="module")
def engine(bundle: Bundle) -> Engine:
    return open_engine(bundle, 2)


@pytest.fixture
def pager(bundle: Bundle) -> Pager:
    return Pager(bundle.level_paths, "10MB")


@pytest.mark.skipif(
    not Path("/proc/self/smaps").exists(), reason="it asks Linux what of a mapping is resident"
)
def test_a_program_is_not_resident_beside_its_packed_weights(bundle: Bundle) -> None:
    path = str(bundle.path_of(bundle.manifest.programs[0].path))
    context = open_engine(bundle, 2).new_context()
    lines = iter(Path("/proc/self/smaps").read_text(encoding="utf-8").splitlines())
    resident = 0
    for line in lines:
        if line.endswith(path):
            resident += next(int(row.split()[1]) for row in lines if row.startswith("Rss:"))
    assert resident == 0
    context.forward(TOKENS, 0)  # what it needs of the file comes back


@pytest.mark.parametrize("nodes", PATHS.values(), ids=PATHS.keys())
@pytest.mark.parametrize("chunks", [[50], [1] * 50, [3, 17, 1, 29]], ids=["prefill", "decode", "mixed"])
def test_logits_equal_the_reference(
    reference: Checkpoint, engine: Engine, pager: Pager, nodes: list[Node], chunks: list[int]
) -> None:
    context, wanted = engine.new_context(), expected(reference, TOKENS, nodes)
    with pager.fetch(nodes) as lease:
        start = 0
        for count in chunks:
            logits = context.forward(TOKENS[start : start + count], lease.handle if nodes else 0)
            start += count
            assert np.abs(logits - wanted[start - 1]).max() < TOLERANCE


def test_each_memory_changes_the_logits(reference: Checkpoint) -> None:
    # Otherwise the parity above would hold for a program that ignores its memory.
    last = [expected(reference, TOKENS, nodes)[-1] for nodes in PATHS.values()]
    for i, one in enumerate(last):
        for other in last[:i]:
            assert np.abs(one - other).max() > 100 * TOLERANCE


def test_a_handle_without_blocks_is_no_memory(reference: Checkpoint, engine: Engine, pager: Pager) -> None:
    # Leaf 15 is an empty cluster: the bundle has no block for it.
    with pager.fetch([(2, 15)]) as lease:
        logits = engine.new_context().forward(TOKENS, lease.handle)
    assert np.abs(logits - expected(reference, TOKENS, [])[-1]).max() < TOLERANCE


def test_contexts_do_not_share_their_cache(reference: Checkpoint, engine: Engine) -> None:
    one, other, wanted = engine.new_context(), engine.new_context(), expected(reference, TOKENS, [])
    one.forward(TOKENS[:30], 0)
    other.forward(TOKENS[10:40], 0)
    assert np.abs(one.forward(TOKENS[30:], 0) - wanted[-1]).max() < TOLERANCE


def test_reset_starts_anew(reference: Checkpoint, engine: Engine) -> None:
    context = engine.new_context()
    context.forward(TOKENS[20:], 0)
    context.reset()
    assert context.position == 0
    assert np.abs(context.forward(TOKENS, 0) - expected(reference, TOKENS, [])[-1]).max() < TOLERANCE


def test_overflow_is_refused_and_appends_nothing(engine: Engine) -> None:
    context = engine.new_context()
    context.forward(TOKENS, 0)
    with pytest.raises(ContextOverflowError, match="50 tokens after 50"):
        context.forward(TOKENS, 0)
    assert context.position == 50
    context.forward(TOKENS[:46], 0)
    assert context.position == context.context_length == 96


def test_a_released_lease_is_refused_and_the_context_goes_on(
    reference: Checkpoint, engine: Engine, pager: Pager
) -> None:
    context = engine.new_context()
    lease = pager.fetch([(1, 2)])
    handle = lease.handle
    lease.release()
    with pytest.raises(StaleHandleError):
        context.forward(TOKENS, handle)
    assert context.position == 0
    assert np.abs(context.forward(TOKENS, 0) - expected(reference, TOKENS, [])[-1]).max() < TOLERANCE


def test_damage_in_a_block_surfaces_as_the_core_reports_it(
    bundle: Bundle, engine: Engine, tmp_path: Path
) -> None:
    source = Path(bundle.level_paths[1][0])
    damaged = tmp_path / source.name
    data = bytearray(source.read_bytes())
    data[-10_000] ^= 1  # in the last block, whose stride is a page; the tables after it are a few bytes
    damaged.write_bytes(data)
    pager = Pager([[damaged]], "10MB")
    with pager.fetch([(1, 3)]) as lease, pytest.raises(ChecksumError, match=r"level1\.safetensors.*node 3"):
        engine.new_context().forward(TOKENS, lease.handle)


def test_a_damaged_program_is_one_error(bundle: Bundle, tmp_path: Path) -> None:
    copy = tmp_path / "copy.bundle"
    shutil.copytree(bundle.directory, copy)
    path = copy / "anchor.paged.pte"
    data = bytearray(path.read_bytes())
    data[:64] = bytes(64)
    path.write_bytes(data)
    with pytest.raises(BadFormatError, match=r"anchor\.paged\.pte"):
        open_engine(Bundle.open(copy), 2)


@pytest.mark.parametrize(
    "text", ["Hi", "Hafnium. Hafnium is a transition metal. Its atomic number is", "long text " * 300]
)
def test_the_embedder_equals_minilm(bundle: Bundle, text: str) -> None:
    found = open_embedder(bundle, "minilm", 2).embed(text)
    assert np.abs(found - MiniLM().embed([text])[0]).max() < 1e-5


def test_the_engine_never_imports_torch(tiny_bundle: Path) -> None:
    code = (
        "import sys, numpy as np\n"
        "from edge_runtime.bundle import Bundle\n"
        "from edge_runtime.embedders import open_embedder\n"
        "from edge_runtime.engines import open_engine\n"
        "bundle = Bundle.open(sys.argv[1])\n"
        "open_embedder(bundle, 'minilm', 2).embed('a prompt')\n"
        "open_engine(bundle, 2).new_context().forward(np.arange(5), 0)\n"
        "assert 'torch' not in sys.modules and 'executorch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tiny_bundle)], check=True)
