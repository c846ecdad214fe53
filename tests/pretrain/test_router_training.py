"""The static router's training: cuts, features, the student and its file, distillation, and the verdict."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_recipe import TINY
from tokenizers import Tokenizer

from edge_pretrain.cluster import ClusterTree, build_tree
from edge_pretrain.router.__main__ import main
from edge_pretrain.router.config import MADE_FROM, DistillConfig, is_trained
from edge_pretrain.router.cuts import LONGEST, SHORTEST, cuts
from edge_pretrain.router.distill import Siblings, distill, paths_of, sibling_loss
from edge_pretrain.router.features import Features, features_of
from edge_pretrain.router.judge import StaticFile, Verdict, agreement, agreement_by_margin, least_margins
from edge_pretrain.router.student import Student, StudentShape, quantized
from edge_pretrain.tokenizer import train_tokenizer
from edge_runtime import _core
from edge_runtime.cli.main import main as edge_runtime

DOCUMENTS = [
    "Hafnium. Hafnium is a transition metal, in period 6 of the periodic table. Its number is 72.",
    "Lisbon. Lisbon is a city on the coast of Portugal. It was founded long ago by sailors.",
    "Ada Byron. Ada Byron is a mathematician from England who studies engines. She was born in London.",
    "short",
]


def test_cuts_are_beginnings_and_windows_of_the_documents():
    found = cuts(DOCUMENTS, 400, 0)
    assert found == cuts(DOCUMENTS, 400, 0) != cuts(DOCUMENTS, 400, 1)
    assert len(set(found)) == len(found) > 100
    as_written = {cut for cut in found if any(cut in document for document in DOCUMENTS)}
    assert any(document.startswith(cut) for cut in as_written for document in DOCUMENTS[:3])
    assert any(not document.startswith(cut) for cut in as_written for document in DOCUMENTS[:3])
    plain = [cut for cut in found if cut == cut.lower()]
    assert any("." not in cut and "," not in cut for cut in plain)
    assert all(SHORTEST <= len(cut.split()) <= LONGEST for cut in found)
    assert cuts(["one", "two words"], 10, 0) == []


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    train_tokenizer(DOCUMENTS * 9, 300, path)
    return Tokenizer.from_file(str(path))


def test_features_are_tokens_and_the_buckets_of_ngrams(tokenizer: Tokenizer):
    vocab = tokenizer.get_vocab_size()
    ids = tokenizer.encode("Hafnium is").ids
    features = features_of(tokenizer, ["Hafnium is", "", "is"], 3, 50)
    rows = features.flat[: features.offsets[1]].tolist()
    assert rows[: len(ids)] == ids
    assert len(rows) == len(ids) + (len(ids) - 1) + (len(ids) - 2)
    assert all(vocab <= row < vocab + 50 for row in rows[len(ids) :])
    assert features.offsets[1] == features.offsets[2]
    flat, starts = features.batch(np.array([2, 0, 1]))
    last = features.flat[features.offsets[2] :].tolist()
    assert flat.tolist() == last + rows
    assert starts.tolist() == [0, len(last), len(last) + len(rows)]


def test_int8_rows_are_within_half_a_step():
    rows = np.random.default_rng(0).standard_normal((20, 8)).astype(np.float32)
    rows[3] = 0
    values, scales = quantized(rows)
    assert values.dtype == np.int8
    assert np.abs(values * scales[:, None] - rows).max() <= scales.max() / 2 * 1.001
    assert scales[3] == 0


def student(tokenizer: Tokenizer, order: int) -> Student:
    rows = 64 if order > 1 else 0
    shape = StudentShape(tokenizer.get_vocab_size(), 24, 16, order, rows)
    return Student(shape, torch.Generator().manual_seed(0))


@pytest.mark.parametrize("order", [1, 3])
def test_the_file_embeds_as_the_student_does(tokenizer: Tokenizer, tmp_path: Path, order: int):
    made = student(tokenizer, order)
    made.bias.data.normal_(generator=torch.Generator().manual_seed(1))
    # Rows that int8 holds exactly: what is left is the arithmetic.
    values, scales = quantized(made.rows.weight.detach().numpy())
    made.rows.weight.data = torch.from_numpy(values * scales[:, None])
    made.write(tmp_path / "static.safetensors")
    texts = [*DOCUMENTS, "", "漢字"]
    features = features_of(tokenizer, texts, order, made.shape.ngram_rows)
    with torch.inference_mode():
        wanted = made(*features.batch(np.arange(len(texts)))).numpy()
    found = StaticFile(tmp_path / "static.safetensors", tokenizer)(texts)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5)


def separable() -> tuple[Features, np.ndarray, ClusterTree]:
    """400 texts of two tokens each, whose embedding is the sum of the tokens' own."""
    random = np.random.default_rng(3)
    own = random.standard_normal((40, 16)).astype(np.float32)
    pairs = random.integers(40, size=(400, 2))
    points = own[pairs].sum(axis=1)
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    features = Features(pairs.ravel(), np.arange(0, 801, 2))
    return features, points, build_tree(points, 4, 2, 0)


def test_distillation_learns_what_can_be_learned_and_repeats_itself():
    features, points, tree = separable()
    config = DistillConfig(width=16, order=1, ngram_rows=0, steps=300, batch=64, learning_rate=2e-2)
    losses: list[float] = []
    made = distill(features, points, tree, 40, config, 0, losses.append)
    with torch.inference_mode():
        found = made(*features.batch(np.arange(400))).numpy()
    shares = agreement(tree, found, points)
    assert shares[0] > 0.9
    assert shares[1] > 0.8
    assert len(losses) == 300
    again = distill(features, points, tree, 40, config, 0)
    assert torch.equal(made.rows.weight, again.rows.weight)


def test_the_sibling_loss_is_least_where_the_student_is_the_teacher():
    _, points, tree = separable()
    wanted, paths = torch.from_numpy(points), torch.from_numpy(paths_of(tree, points))
    siblings = Siblings(tree)
    same = sibling_loss(siblings, wanted, wanted, paths, 0.05)
    moved = sibling_loss(siblings, wanted.roll(1, 0), wanted, paths, 0.05)
    assert same < moved
    # Distances are those of the tree's own lookup, closed clusters apart.
    found = siblings.distances(wanted, 1, torch.zeros(len(points), dtype=torch.long))
    np.testing.assert_array_equal(found.argmin(1).numpy(), paths[:, 0].numpy())


def test_agreement_counts_whole_paths():
    _, points, tree = separable()
    assert agreement(tree, points, points) == [1, 1]
    half = points.copy()
    half[:200] = half[200:]
    shares = agreement(tree, half, points)
    assert 0.5 <= shares[1] <= shares[0] < 1
    surest = agreement_by_margin(tree, half, points, (0.1, 1.0))
    assert surest[1.0] == pytest.approx(shares[1])


def test_margins_are_those_of_the_core(tmp_path: Path):
    _, points, tree = separable()
    tree.write(tmp_path / "tree.safetensors")
    core = _core.Tree(str(tmp_path / "tree.safetensors"))
    found = least_margins(tree, points[:50])
    assert found == pytest.approx([min(core.descend(point)[1]) for point in points[:50]], abs=1e-5)


@pytest.mark.parametrize(
    ("leaf", "static", "fit"),
    [(0.8, 0.60, True), (0.79, 0.62, False), (0.95, 0.599, True), (0.95, 0.57, False)],
)
def test_the_rule_asks_for_agreement_and_for_answers(leaf: float, static: float, fit: bool):
    verdict = Verdict(700, [0.99, leaf], {"static": static, "minilm": 0.61})
    assert verdict.default is fit


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished training with its static router."""
    out = tmp_path_factory.mktemp("router-run")
    (out / "tiny.toml").write_text(TINY)
    assert edge_runtime(["pretrain", "--recipe", str(out / "tiny.toml"), "-o", str(out / "run")]) == 0
    assert main(["train", str(out / "run"), "--steps", "30", "--width", "16", "--ngram-rows", "64"]) == 0
    return out / "run"


def test_training_writes_tables_and_a_report(run: Path):
    report = json.loads((run / "checkpoint/router/report.json").read_text())
    assert report["validation"]["questions"] > 0
    assert len(report["validation"]["agreement"]) == 2
    assert report["validation"]["answers"].keys() == {"static", "minilm"}
    assert report["provenance"]["configuration"]["steps"] == 30
    assert report["sha256"].keys() == {"static.safetensors", *MADE_FROM}
    assert _core.StaticEmbedder(str(run / "checkpoint/router/static.safetensors")).dim == 384


def test_training_again_gives_the_same_tables_or_is_not_needed(run: Path, capsys: pytest.CaptureFixture[str]):
    path, report = (run / "checkpoint/router" / name for name in ("static.safetensors", "report.json"))
    arguments = ["train", str(run), "--steps", "30", "--width", "16", "--ngram-rows", "64"]
    before = path.read_bytes()
    assert main(arguments) == 0
    assert "up to date" in capsys.readouterr().err
    report.unlink()
    assert main(arguments) == 0
    assert "up to date" not in capsys.readouterr().err
    assert path.read_bytes() == before


def test_a_checkpoint_that_was_trained_again_needs_another_router(run: Path, tmp_path: Path):
    copy = tmp_path / "checkpoint"
    shutil.copytree(run / "checkpoint", copy)
    config = DistillConfig(steps=30, width=16, ngram_rows=64)
    assert is_trained(copy, config)
    assert not is_trained(copy, DistillConfig())
    (copy / "config.json").write_text("{}")
    assert not is_trained(copy, config)


def test_a_corpus_of_ones_own_gets_a_tree_and_a_router(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    documents, prompts = tmp_path / "documents.txt", tmp_path / "prompts.txt"
    documents.write_text("\n".join(f"{text} Number {i}." for i in range(8) for text in DOCUMENTS))
    prompts.write_text("who was born in london\n\ncity on the coast\n")
    arguments = ["corpus", "-o", str(tmp_path / "out"), "--documents", str(documents)]
    arguments += ["--prompts", str(prompts), "--fanout", "3", "--depth", "2", "--vocab-size", "300"]
    arguments += ["--cuts", "40", "--steps", "20", "--width", "8", "--ngram-rows", "32"]
    assert main(arguments) == 0
    results = json.loads((tmp_path / "out/results.json").read_text())
    assert results["prompts"]["prompts.txt"]["count"] == 2
    assert len(results["prompts"]["prompts.txt"]["agreement"]) == 2
    assert "level 2" in capsys.readouterr().out
    further, own = tmp_path / "further.txt", tmp_path / "tokenizer.json"
    further.write_text("engines of the coast\n\nsailors of old\n")
    train_tokenizer(DOCUMENTS * 9, 280, own)
    assert main([*arguments, "--texts", str(further), "--tokenizer", str(own)]) == 0
    wider = json.loads((tmp_path / "out/results.json").read_text())
    assert wider["training_texts"] == results["training_texts"] + 2
    assert wider["vocab_size"] == Tokenizer.from_file(str(own)).get_vocab_size() != results["vocab_size"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["train", "/nonexistent/run"], "config.json is missing"),
        (["corpus", "-o", "x", "--documents", "/nonexistent/d", "--prompts", "p"], "no such file"),
        (["corpus", "-o", "x", "--documents", __file__, "--prompts", "/nonexistent/p"], "no such file"),
    ],
)
def test_bad_input_is_one_line(arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]):
    assert main(arguments) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert says in line
