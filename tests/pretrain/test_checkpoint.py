import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models

from edge_pretrain import checkpoint
from edge_pretrain.checkpoint import CheckpointError
from edge_pretrain.memories import MemoryBank, MemoryConfig
from edge_pretrain.model import Anchor, AnchorConfig

SETTINGS = {
    "tokens": {"bos": 0, "eos": [0], "add_bos": True},
    "chat_template": None,
    "generation": {"max_tokens": 8, "temperature": 0.0, "stop": ["\n"]},
    "embedder": {"id": "none", "sha256": "0" * 64, "max_tokens": 256},
    "provenance": {"seed": 0},
}


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    generator = torch.Generator().manual_seed(0)
    anchor = Anchor(AnchorConfig(2, 16, 2, 8, 24, 20, 12))
    anchor.initialize(generator)
    memories = MemoryBank.initialized(MemoryConfig(4, (0, 3), (1,)), anchor.config, generator)
    inputs = tmp_path / "inputs"
    inputs.mkdir()
    vocabulary = {f"w{i}": i for i in range(20)}
    Tokenizer(models.WordLevel(vocabulary, unk_token="w0")).save(str(inputs / "tokenizer.json"))
    save_file({"centroids.1": torch.zeros(4, 3)}, inputs / "tree.safetensors")
    (inputs / "questions.jsonl").write_text('{"prompt": "a", "answer": "b"}\n')
    checkpoint.save(
        tmp_path / "checkpoint",
        anchor,
        memories,
        tree=inputs / "tree.safetensors",
        tokenizer=inputs / "tokenizer.json",
        questions=inputs / "questions.jsonl",
        settings=SETTINGS,
    )
    return tmp_path / "checkpoint"


def test_what_is_saved_is_loaded(saved: Path):
    loaded = checkpoint.load(saved)
    assert loaded.memories.config == MemoryConfig(4, (0, 3), (1,))
    assert loaded.anchor.config == AnchorConfig(2, 16, 2, 8, 24, 20, 12)
    tensors = load_file(saved / "anchor.safetensors")
    assert all(torch.equal(tensors[name], value) for name, value in loaded.anchor.state_dict().items())
    blocks = load_file(saved / "memories.safetensors")
    assert {name: tuple(t.shape) for name, t in blocks.items()} == {
        "level0": (1, 1, 3, 3, 16),
        "level2": (16, 1, 3, 3, 16),
    }
    assert torch.equal(blocks["level2"], loaded.memories.levels[2])
    assert loaded.config["memory"]["levels"] == [{"level": 0, "rows": 3}, {"level": 2, "rows": 3}]
    assert {key: loaded.config[key] for key in SETTINGS} == SETTINGS


def test_the_anchors_tensors_have_the_agreed_names(saved: Path):
    layer = (
        *(f"attention.{name}.weight" for name in ("wq", "wk", "wv", "wo", "q_norm", "k_norm")),
        *(f"feed_forward.{name}.weight" for name in ("w1", "w2", "w3")),
        "attention_norm.weight",
        "ffn_norm.weight",
    )
    names = {"tok_embeddings.weight", "norm.weight", *(f"layers.{i}.{n}" for i in range(2) for n in layer)}
    assert load_file(saved / "anchor.safetensors").keys() == names


def edit_config(saved: Path, change: dict[str, object]) -> None:
    path = saved / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))


def remove(saved: Path) -> None:
    (saved / "tree.safetensors").unlink()


def truncate(saved: Path) -> None:
    path = saved / "anchor.safetensors"
    path.write_bytes(path.read_bytes()[:-4])


def reshape(saved: Path) -> None:
    save_file({"level0": torch.zeros(1), "level2": torch.zeros(2)}, saved / "memories.safetensors")


def enlarge_vocabulary(saved: Path) -> None:
    vocabulary = {f"w{i}": i for i in range(21)}
    Tokenizer(models.WordLevel(vocabulary, unk_token="w0")).save(str(saved / "tokenizer.json"))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (remove, r"tree\.safetensors is missing"),
        (truncate, r"anchor\.safetensors: damaged"),
        (reshape, r"memories\.safetensors: level0 is .* config\.json asks for float32 \[1, 1, 3, 3, 16\]"),
        (enlarge_vocabulary, r"tokenizer\.json: 21 tokens do not fit the anchor's 20"),
        (lambda saved: (saved / "config.json").write_text("{"), r"config\.json: not readable as JSON"),
        (lambda saved: edit_config(saved, {"format": "x"}), r"not an edge-runtime\.checkpoint file"),
        (lambda saved: edit_config(saved, {"version": 2}), "version 2 is not known"),
        (lambda saved: edit_config(saved, {"anchor": {}}), "bad or missing key: 'layers'"),
    ],
)
def test_a_bad_checkpoint_is_refused_with_one_line(saved: Path, damage, message: str):
    damage(saved)
    with pytest.raises(CheckpointError, match=message) as refused:
        checkpoint.load(saved)
    assert "\n" not in str(refused.value)
