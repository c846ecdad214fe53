"""A tiny checkpoint and its bundle, which the tests of the exporter, the engines and the runtime share."""

from __future__ import annotations

import hashlib
import json
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock

import edge_export
import edge_pretrain

# Started in the background of a script, we would hand on to the programs under test that they ignore Ctrl-C.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

FANOUT, ROWS, MEMORY_LAYERS = 4, (8, 16), (1, 3)
TEXTS = [
    "Hafnium. Hafnium is a transition metal in period 6 of the periodic table. Its atomic number is 72.",
    "Radon. Radon is a noble gas in period 6 of the periodic table. Its symbol is Rn.",
    "Lisbon. Lisbon is a city on the coast. It was founded long ago.",
    "Ada Byron. Ada Byron is a mathematician. She was born in London.",
    "The cat sat on the mat. It was a warm day.",
]
QUESTIONS = [
    {
        "prompt": f"{text.rsplit('. ', 1)[0]}. {text.rsplit('. ', 1)[1].rsplit(' ', 1)[0]}",
        "answer": text.rsplit(" ", 1)[1].rstrip("."),
        "entity": text.split(".")[0],
        "fact": "fact",
        "kind": "element" if i < 2 else "place",
        "bucket": 4 * (i % 2),
        "rare": i % 2 == 0,
    }
    for i, text in enumerate(TEXTS[:4])
]


def write_checkpoint(directory: Path) -> None:
    """Random weights whose memories matter: W3 is not zero, so that every level changes the logits."""
    import torch

    from edge_pretrain import checkpoint
    from edge_pretrain.cluster import ClusterTree
    from edge_pretrain.embed import EMBEDDER_ID, MAX_TOKENS, SHA256, MiniLM
    from edge_pretrain.memories import MemoryBank, MemoryConfig
    from edge_pretrain.model import Anchor, AnchorConfig
    from edge_pretrain.tokenizer import train_tokenizer

    directory.mkdir(parents=True)
    generator = torch.Generator().manual_seed(7)
    anchor = Anchor(AnchorConfig(4, 64, 2, 32, 128, 320, 96))
    anchor.initialize(generator)
    bank = MemoryBank.initialized(MemoryConfig(FANOUT, ROWS, MEMORY_LAYERS), anchor.config, generator)
    for block in bank.levels.values():
        block[:, :, 2] = 0.3 * torch.randn(block[:, :, 2].shape, generator=generator)
    train_tokenizer(TEXTS * 40, 300, directory / "made-tokenizer.json")

    # Centroids near the texts, so that different prompts take different paths; the last leaf is empty.
    embeddings = MiniLM().embed(TEXTS)
    random = np.random.default_rng(7)
    top = embeddings[:FANOUT]
    leaves = np.repeat(top, FANOUT, axis=0) + 0.02 * random.standard_normal((FANOUT**2, top.shape[1]))
    documents = [np.full(FANOUT**level, 9, np.int32) for level in (1, 2)]
    documents[1][-1] = 0
    ClusterTree(FANOUT, [top, leaves.astype(np.float32)], documents).write(
        directory / "made-tree.safetensors"
    )
    (directory / "made-questions.jsonl").write_text("".join(json.dumps(q) + "\n" for q in QUESTIONS))
    checkpoint.save(
        directory,
        anchor,
        bank,
        tree=directory / "made-tree.safetensors",
        tokenizer=directory / "made-tokenizer.json",
        questions=directory / "made-questions.jsonl",
        settings={
            "tokens": {"bos": None, "eos": [], "add_bos": False},
            "chat_template": None,
            "generation": {"max_tokens": 8, "temperature": 0.0, "stop": ["."]},
            "embedder": {"id": EMBEDDER_ID, "sha256": SHA256, "max_tokens": MAX_TOKENS},
            "provenance": {"seed": 7},
        },
    )
    tokenizer = json.loads((directory / "tokenizer.json").read_text())
    write_static_router(directory, len(tokenizer["model"]["vocab"]))


def write_static_router(directory: Path, vocab_size: int) -> None:
    """Random tables in a checkpoint, with a report that keeps MiniLM the default."""
    from edge_runtime import _core

    random = np.random.default_rng(11)
    folder = directory / "router"
    folder.mkdir()
    _core.write_static_embedder(
        str(folder / "static.safetensors"),
        2,
        random.integers(-127, 128, (vocab_size, 16)).astype(np.int8),
        np.full(vocab_size, 0.01, np.float32),
        random.integers(-127, 128, (64, 16)).astype(np.int8),
        np.full(64, 0.01, np.float32),
        random.standard_normal((16, 384)).astype(np.float32),
        random.standard_normal(384).astype(np.float32),
    )
    files = {name: directory / name for name in ("config.json", "tree.safetensors", "tokenizer.json")}
    files["static.safetensors"] = folder / "static.safetensors"
    report = {
        "sha256": {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()},
        "validation": {"questions": 9, "agreement": [0.5, 0.25], "answers": {"static": 0.1, "minilm": 0.2}},
        "default": False,
        "rule": "a rule",
    }
    (folder / "report.json").write_text(json.dumps(report))


def _sources_digest() -> str:
    """Of what the fixtures are made with."""
    digest = hashlib.sha256(Path(__file__).read_bytes())
    for path in sorted(Path(next(iter(edge_export.__path__))).rglob("*.py")):
        digest.update(path.read_bytes())
    for name in ("model", "memories", "checkpoint"):
        digest.update((Path(next(iter(edge_pretrain.__path__))) / f"{name}.py").read_bytes())
    return digest.hexdigest()[:16]


@pytest.fixture(scope="session")
def _tiny(pytestconfig: pytest.Config) -> Path:
    """Made once for one state of the sources and all processes: lowering two programs takes half a minute."""
    assert pytestconfig.cache is not None
    root = pytestconfig.cache.mkdir("edge-runtime-tiny")
    final = root / _sources_digest()
    with FileLock(root.with_suffix(".lock")):
        if not final.is_dir():
            _make_tiny(root, final)
    return final


def _make_tiny(root: Path, final: Path) -> None:
    from edge_export.bundle import export_bundle
    from edge_export.source import ExportConfig, Source

    shutil.rmtree(root)
    partial = root / "partial"
    write_checkpoint(partial / "checkpoint")
    # f32: the parity tests compare with the reference to 1e-4. A short prefill: prompts take several calls.
    config = ExportConfig("tiny", "f32", 16, None, programs=(("executorch", "paged"),))
    export_bundle(Source.open(partial / "checkpoint"), partial / "tiny.bundle", config, lambda step: None)
    partial.rename(final)


@pytest.fixture(scope="session")
def tiny_checkpoint(_tiny: Path) -> Path:
    """A checkpoint directory. Read only: copy it to change it."""
    return _tiny / "checkpoint"


@pytest.fixture(scope="session")
def tiny_bundle(_tiny: Path) -> Path:
    """The bundle of `tiny_checkpoint`, its bank in f32. Read only: copy it to change it."""
    return _tiny / "tiny.bundle"
