"""Memories on frozen Hugging Face anchors: from a folder to a checkpoint, and what the exporter makes of it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from families import save
from safetensors.torch import load_file

from edge_export.huggingface import load_decoder
from edge_export.inputs import load_inputs
from edge_export.source import Source
from edge_pretrain import checkpoint, subtrees
from edge_pretrain.checkpoint import CheckpointError
from edge_pretrain.hf_folder import AnchorFolder
from edge_pretrain.memories import MemoryBank, MemoryConfig
from edge_pretrain.memory_types import TYPES
from edge_pretrain.memory_types.lora import ALPHA
from edge_pretrain.model import MemoryRows
from edge_pretrain.posthoc.anchor import HuggingFaceAnchor, positions_of
from edge_runtime.cli.main import main
from edge_runtime.errors import BadFormatError, NotFoundError

CASES = ("smollm2", "llama3", "qwen2", "qwen3", "gemma3", "gemma3-capped", "smollm3", "olmo2")
TRAINED = ("smollm2", "qwen2", "qwen3", "gemma3")
TOLERANCE = 1e-4
TOKENS = torch.randint(3, 250, (2, 40), generator=torch.Generator().manual_seed(3))
RECIPE = """
[texts]
sequence_length = 60
held_out = 0.1
[tree]
fanout = 2
depth = 2
[memory]
rows = [2, 4]
[frozen]
steps = 12
batch = 4
warmup = 2
memory_learning_rate = 2e-2
memory_weight_decay = 1e-3
"""


def anchor_of(case: str, folder: Path) -> HuggingFaceAnchor:
    save(case, folder)
    return HuggingFaceAnchor.load(AnchorFolder.open(folder))


def memory_of(anchor: HuggingFaceAnchor, kind: str = "ffn", rows: int = 3, batch: int = 2) -> MemoryRows:
    shape = TYPES[kind].shape(anchor.config, rows)
    values = 0.3 * torch.randn(
        batch, anchor.config.layers, *shape, generator=torch.Generator().manual_seed(1)
    )
    return MemoryRows(values, tuple(range(anchor.config.layers)), TYPES[kind])


@pytest.mark.parametrize("case", CASES)
@torch.no_grad()
def test_the_anchor_reads_memory_as_its_programs_do(case: str, tmp_path: Path) -> None:
    anchor = anchor_of(case, tmp_path)
    decoder, memory = load_decoder(tmp_path, 4096), memory_of(anchor)
    for given in (None, memory):
        assert (anchor(TOKENS, given) - decoder(TOKENS, given)).abs().max() < TOLERANCE
    assert (anchor(TOKENS, memory) - anchor(TOKENS)).abs().max() > 100 * TOLERANCE


@pytest.mark.parametrize("kind", ["kv", "lora_ffn"])
@pytest.mark.parametrize("case", CASES)
@torch.no_grad()
def test_memory_of_other_kinds_is_read_alike(case: str, kind: str, tmp_path: Path) -> None:
    anchor = anchor_of(case, tmp_path)
    decoder, memory = load_decoder(tmp_path, 4096), memory_of(anchor, kind)
    assert (anchor(TOKENS, memory) - decoder(TOKENS, memory)).abs().max() < TOLERANCE
    assert (anchor(TOKENS, memory) - anchor(TOKENS)).abs().max() > 100 * TOLERANCE


@pytest.mark.parametrize("case", ["smollm2", "gemma3", "smollm3"])
@torch.no_grad()
def test_packed_documents_do_not_see_each_other(case: str, tmp_path: Path) -> None:
    anchor = anchor_of(case, tmp_path)
    documents = torch.tensor([[0] * 15 + [1] * 20 + [-1] * 5, [0] * 40])
    memory = memory_of(anchor)
    packed = anchor(TOKENS, memory, documents)
    for row, start, end in ((0, 0, 15), (0, 15, 35), (1, 0, 40)):
        one = MemoryRows(memory.rows[row : row + 1], memory.layers)
        alone = anchor(TOKENS[row : row + 1, start:end], one)
        assert (packed[row, start:end] - alone[0]).abs().max() < TOLERANCE
    assert positions_of(documents)[0, [0, 14, 15, 34, 35, 36]].tolist() == [0, 14, 0, 19, 0, 1]


@pytest.mark.parametrize("kind", TYPES)
def test_new_memories_of_every_kind_have_no_effect_and_can_learn(kind: str, tmp_path: Path) -> None:
    anchor = anchor_of("qwen3", tmp_path)
    config = MemoryConfig(2, (2, 3), (0, 1), kind)
    bank = MemoryBank.initialized(config, anchor.config, torch.Generator().manual_seed(0))
    memory = bank.fetch(torch.tensor([1, 2]), torch.tensor([False, True]))
    memory.rows.requires_grad_()
    logits = anchor(TOKENS, memory)
    assert (logits - anchor(TOKENS)).abs().max() < TOLERANCE
    (gradient,) = torch.autograd.grad(logits.square().sum(), memory.rows)
    assert (gradient.flatten(2).abs().sum(-1) > 0).all()
    assert not any(p.requires_grad for p in anchor.parameters())


@torch.no_grad()
def test_lora_is_a_change_of_the_products(tmp_path: Path) -> None:
    anchor = anchor_of("qwen2", tmp_path)
    memory = memory_of(anchor, "lora_qk", batch=1)
    with_memory = anchor(TOKENS, memory)
    for layer, block in enumerate(anchor.model.model.layers):  # type: ignore[union-attr,arg-type]
        for part, name in enumerate(("q_proj", "k_proj")):
            weight = getattr(block.self_attn, name).weight
            outer, inner = weight.shape
            row = memory.rows[0, layer, part]
            weight += ALPHA * row[:, inner : inner + outer].T @ row[:, :inner]
    assert (with_memory - anchor(TOKENS)).abs().max() < TOLERANCE


@pytest.mark.parametrize("case", ["qwen3", "olmo2", "smollm2"])
@torch.no_grad()
def test_one_key_adds_its_value_to_every_head(case: str, tmp_path: Path) -> None:
    anchor = anchor_of(case, tmp_path)
    memory = memory_of(anchor, "kv", rows=1, batch=1)
    with_memory = anchor(TOKENS, memory)
    for layer, block in enumerate(anchor.model.model.layers):  # type: ignore[union-attr,arg-type]
        product = block.self_attn.o_proj
        product.bias = torch.nn.Parameter(product.weight @ memory.rows[0, layer, 1, 0])
    assert (with_memory - anchor(TOKENS)).abs().max() < TOLERANCE


@torch.no_grad()
@pytest.mark.parametrize("case", ["qwen3", "olmo2", "smollm2", "gemma3"])
def test_keys_are_asked_by_normalised_queries_without_positions(case: str, tmp_path: Path) -> None:
    anchor = anchor_of(case, tmp_path)
    attention = anchor.model.model.layers[0].self_attn  # type: ignore[union-attr,index]
    seen = {}
    attention.o_proj.register_forward_pre_hook(lambda _, given: seen.update(heads=given[0]))
    anchor(TOKENS)
    alone = seen["heads"]
    memory = memory_of(anchor, "kv", rows=3, batch=1)
    anchor(TOKENS, memory)
    x = anchor.model.model.embed_tokens(TOKENS)  # type: ignore[union-attr]
    if hasattr(anchor.model.model.layers[0], "input_layernorm"):  # type: ignore[union-attr,index]
        x = anchor.model.model.layers[0].input_layernorm(x)  # type: ignore[union-attr,index]
    q, shape = attention.q_proj(x), (anchor.config.heads, anchor.config.head_dim)
    q = {
        "qwen3": lambda: attention.q_norm(q.unflatten(-1, shape)),
        "olmo2": lambda: attention.q_norm(q).unflatten(-1, shape),
        "smollm2": lambda: q.unflatten(-1, shape),
        "gemma3": lambda: attention.q_norm(q.unflatten(-1, shape)),
    }[case]()
    keys, values = (rows.unflatten(-1, shape) for rows in memory.rows[0, 0])
    # The anchor's own: of Gemma query_pre_attn_scalar, 24 here, with heads of 16.
    scale = 24**-0.5 if case == "gemma3" else shape[1] ** -0.5
    weights = (torch.einsum("bthd,rhd->bthr", q, keys) * scale).softmax(-1)
    wanted = alone + torch.einsum("bthr,rhd->bthd", weights, values).flatten(2)
    assert (seen["heads"] - wanted).abs().max() < TOLERANCE


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("texts") / "texts.jsonl"
    lines = [
        f"{kind} {i}. It is a {kind} of {what}."
        for i in range(12)
        for kind, what in (("river", "the cold north"), ("singer", "old sad songs"))
    ]
    path.write_text("".join(json.dumps({"text": line}) + "\n" for line in lines))
    return path


def pretrain(folder: Path, texts: Path, out: Path, *more: str) -> int:
    (out.parent / "recipe.toml").write_text(RECIPE)
    arguments = ["pretrain", "--anchor", folder, "--frozen", "--recipe", out.parent / "recipe.toml"]
    return main([str(a) for a in [*arguments, "--texts", texts, "-o", out, "--threads", "1", *more]])


@pytest.mark.parametrize("case", TRAINED)
def test_a_family_is_trained_and_taken_by_the_exporter(case: str, tmp_path: Path, texts: Path) -> None:
    folder, out = tmp_path / "anchor", tmp_path / "run"
    save(case, folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert pretrain(folder, texts, out) == 0
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    found = json.loads((out / "checkpoint/perplexity.json").read_text())
    assert found["fetched"]["loss"] < found["baseline"]["loss"] - 0.05
    assert found["generic"]["loss"] != found["fetched"]["loss"]

    inputs = load_inputs(Source.open(out / "checkpoint"))
    assert inputs.memories is not None
    assert inputs.settings["tokens"]["bos"] == 1
    levels = load_file(out / "checkpoint/memories.safetensors")
    rows = MemoryRows(torch.cat([levels["level1"][1:], levels["level2"][2:3]], dim=3), (0, 1))
    with torch.no_grad():
        wanted = HuggingFaceAnchor.load(AnchorFolder.open(folder))(TOKENS, rows)
        assert (inputs.decoder(TOKENS, rows) - wanted).abs().max() < TOLERANCE


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, texts: Path) -> Path:
    root = tmp_path_factory.mktemp("trained")
    save("smollm2", root / "anchor")
    assert pretrain(root / "anchor", texts, root / "run") == 0
    return root


def test_a_finished_run_is_left_alone(trained: Path, texts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (trained / "run/checkpoint/config.json").stat().st_mtime_ns
    assert pretrain(trained / "anchor", texts, trained / "run") == 0
    assert "up to date" in capsys.readouterr().err
    assert (trained / "run/checkpoint/config.json").stat().st_mtime_ns == before


def test_jobs_of_subtrees_end_with_the_bits_of_one(trained: Path, texts: Path, tmp_path: Path) -> None:
    shutil.copytree(trained / "run/prepared", tmp_path / "run/prepared")
    arguments = ["-o", tmp_path / "run", "--anchor", trained / "anchor", "--recipe", trained / "recipe.toml"]
    arguments += ["--threads", "1", "--set", f'source.path="{texts}"']
    for unit in range(3):
        assert subtrees.main(["train", *map(str, arguments), "--unit", str(unit)]) == 0
    assert subtrees.main(["merge", *map(str, arguments)]) == 0
    assert pretrain(trained / "anchor", texts, tmp_path / "run") == 0
    one, merged = (root / "run/checkpoint/memories.safetensors" for root in (trained, tmp_path))
    assert one.read_bytes() == merged.read_bytes()


@pytest.mark.slow
def test_a_bundle_of_it_answers(trained: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    out = tmp_path / "small.bundle"
    export = ["export", trained / "run/checkpoint", "-o", out, "--to", "onnx", "--routers", "minilm-onnx"]
    assert main([str(argument) for argument in [*export, "--memory-dtype", "f32"]]) == 0
    capsys.readouterr()
    assert main(["compare", str(out), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {row["memory"] for row in rows} == {"none", "generic", "path"}
    assert all(row["max_logit_error"] < TOLERANCE for row in rows)
    assert main(["run", str(out), "river 3.", "--max-tokens", "4"]) == 0


def test_an_anchor_that_moved_or_changed_is_said_so(trained: Path, tmp_path: Path) -> None:
    copy = tmp_path / "checkpoint"
    shutil.copytree(trained / "run/checkpoint", copy)
    other = tmp_path / "other"
    save("smollm2", other, rope_theta=5e4)
    with pytest.raises(BadFormatError, match=r"not the anchor that .* was trained with"):
        load_inputs(Source.open(other, copy))
    config = json.loads((copy / "config.json").read_text())
    config["anchor"]["path"] = str(tmp_path / "gone")
    (copy / "config.json").write_text(json.dumps(config))
    with pytest.raises(NotFoundError, match=r"no longer at .*gone: where it is now, .*--memory"):
        Source.open(copy)
    assert load_inputs(Source.open(trained / "anchor", copy)).memories is not None
    with pytest.raises(CheckpointError, match="memories of a Hugging Face anchor"):
        checkpoint.load(copy)


def refused(capsys: pytest.CaptureFixture[str], code: int, says: str) -> None:
    errors = capsys.readouterr().err
    assert code == 1
    assert says in errors.splitlines()[-1]
    assert "Traceback" not in errors


def test_folders_that_are_no_anchor_are_one_line(
    tmp_path: Path, texts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = tmp_path / "anchor", tmp_path / "run"
    model = save("llama3", folder)
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    refused(capsys, pretrain(folder, texts, out), "not loadable")
    (folder / "model.safetensors").unlink()
    refused(capsys, pretrain(folder, texts, out), "neither model.safetensors nor")
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x02.")
    refused(capsys, pretrain(folder, texts, out), "a pickle can run any code")
    model.save_pretrained(folder, max_shard_size="20KB")
    shard = sorted(folder.glob("model-*.safetensors"))[1]
    shard.unlink()
    refused(capsys, pretrain(folder, texts, out), f"{shard.name}: a shard that")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "mamba2"}))
    refused(capsys, pretrain(folder, texts, out), "architecture 'mamba2' is not supported")
    refused(capsys, pretrain(tmp_path / "none", texts, out), "config.json: no such file")


def test_weights_that_config_json_does_not_know_are_refused(tmp_path: Path) -> None:
    save("llama3", tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    for layers, says in ((3, r"layers\.2\..* is missing"), (1, r"layers\.1\..* has no place")):
        (tmp_path / "config.json").write_text(json.dumps(config | {"num_hidden_layers": layers}))
        with pytest.raises(BadFormatError, match=says):
            HuggingFaceAnchor.load(AnchorFolder.open(tmp_path))


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--set", "texts.sequence_length = 65"], "a context of 64 tokens; texts.sequence_length is 65"),
        (["--set", "texts.held_out = 1.5"], "texts.held_out is too large"),
        (["--set", "memory.rows = [2]"], "memory.rows must name r of each of the 2 levels"),
        (["--set", 'source.tokenizer = "t.json"'], "a Hugging Face anchor brings its own"),
        (["--set", "frozen.steps = 0"], "frozen.steps is too small"),
        (["--texts", "none.jsonl"], "none.jsonl: no such file or folder"),
    ],
)
def test_what_does_not_fit_is_one_line(
    more: list[str], says: str, trained: Path, texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    refused(capsys, pretrain(trained / "anchor", texts, tmp_path / "run", *more), says)


def test_frozen_and_anchor_go_together(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refused(capsys, main(["pretrain", "--frozen", "-o", str(tmp_path)]), "--anchor and --frozen go together")
    refused(
        capsys,
        main(["pretrain", "--anchor", str(tmp_path), "-o", str(tmp_path)]),
        "--anchor and --frozen go together",
    )


def test_the_default_recipe_is_whole() -> None:
    from edge_pretrain.posthoc.recipe import load_posthoc_recipe

    recipe = load_posthoc_recipe(None)
    assert recipe.corpus is not None
    assert load_posthoc_recipe(None, texts="a.jsonl").corpus is None
    assert np.isclose(recipe.texts.held_out, 0.02)


@pytest.mark.slow
def test_the_small_llama_is_an_anchor(tmp_path: Path) -> None:
    from edge_pretrain.posthoc.small import main as small

    assert small(["-o", str(tmp_path / "llama"), "--steps", "3"]) == 0
    folder = AnchorFolder.open(tmp_path / "llama")
    assert (folder.markers.bos, folder.markers.eos) == (0, 1)
    assert HuggingFaceAnchor.load(folder).config.vocab_size == 1024
