import json
from pathlib import Path

import pytest
from tiny_recipe import TINY

from edge_pretrain.experiments.__main__ import main
from edge_pretrain.experiments.definitions import EXPERIMENTS
from edge_pretrain.experiments.summary import differences, spread
from edge_pretrain.loop import TrainingInterruptedError
from edge_pretrain.memories import MemoryConfig
from edge_pretrain.recipe import load_recipe
from edge_pretrain.train import Trainer


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("experiments")
    (path / "tiny.toml").write_text(TINY)
    return path


def run(folder: Path, name: str, *more: str) -> int:
    return main(
        [name, "-o", str(folder / "out"), "--recipe", str(folder / "tiny.toml"), "--seeds", "0", *more]
    )


def test_every_variant_is_a_recipe_of_the_same_fetched_size_where_it_must_be():
    demo = load_recipe("demo")
    for experiment in EXPERIMENTS.values():
        variants = experiment.variants(demo)
        assert len({variant.name for variant in variants}) == len(variants)
        sizes = []
        for variant in variants:
            recipe = load_recipe("demo", variant.changes)
            layers = recipe.memory.layers(recipe.anchor.layers)
            config = MemoryConfig(16, recipe.memory.rows, layers, recipe.memory.kind)
            sizes.append(config.fetched_parameters(recipe.anchor))
        if experiment.name != "size":
            assert max(sizes) < 1.08 * min(sizes), experiment.name
        else:
            assert [size / sizes[2] for size in sizes] == [0.25, 0.5, 1, 2]


def test_units_are_kept_when_a_run_is_stopped_and_all_are_summarized(folder: Path, monkeypatch, capsys):
    original, started = Trainer.train_step, []

    def stopped_in_the_second(trainer: Trainer) -> tuple[float, float]:
        started.append(trainer.step)
        if started.count(0) == 2:
            raise TrainingInterruptedError("stopped")
        return original(trainer)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "train_step", stopped_in_the_second)
        # The first unit has two phases: it is stopped in its co-training.
        assert run(folder, "memory-types") == 130
    out = folder / "out" / "memory-types"
    assert not (out / "results.json").exists()
    assert run(folder, "memory-types") == 0
    results = json.loads((out / "results.json").read_text())
    assert list(results["seeds"]) == ["ffn", "lora_qk", "lora_vo", "lora_ffn", "kv"]
    assert results["provenance"]["configuration"]["tree"] == {"fanout": 4, "depth": 2}
    assert (out / "memory-types.png").stat().st_size > 10_000

    monkeypatch.setattr(Trainer, "train_step", lambda _: pytest.fail("trained again"))
    capsys.readouterr()
    assert run(folder, "memory-types", "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert said["summary"] == results["summary"]
    assert said["summary"]["kv"]["common_loss"]["seeds"] == 1
    # A run that another experiment has made as well is not made again.
    assert run(folder, "memory-types") == 0


@pytest.mark.slow
def test_training_modes_and_snapshots_are_scored(folder: Path):
    assert run(folder, "training") == 0
    found = json.loads((folder / "out" / "training" / "results.json").read_text())["seeds"]
    variants = ("frozen", "co-trained from a trained anchor", "from scratch")
    assert {f"{name}, {mode}" for name in variants for mode in ("generic", "fetched")} <= found.keys()
    assert run(folder, "over-time") == 0
    found = json.loads((folder / "out" / "over-time" / "results.json").read_text())["seeds"]
    assert {"memory, fetched@1", "memory, fetched@4", "memory, fetched"} <= found.keys()
    losses = {name: seeds["0"]["common_loss"] for name, seeds in found.items()}
    assert losses["memory, fetched@1"] != losses["memory, fetched"]


@pytest.mark.slow
def test_figure1_has_its_controls_and_intervals(folder: Path):
    assert run(folder, "figure1") == 0
    out = folder / "out" / "figure1"
    results = json.loads((out / "results.json").read_text())
    assert {"baseline", "dense_control", "memory, fetched", "memory, blocked", "memory, random"} <= results[
        "seeds"
    ].keys()
    found = results["differences"]["all_facts"]["fetched - baseline"]
    assert found["low"] <= found["mean"] <= found["high"]
    assert (out / "figure1.png").stat().st_size > 10_000


def test_differences_pair_the_same_seed():
    def result(variant: str, seed: int, series: dict[str, bool]) -> dict:
        question = {
            "prompt": "",
            "answer": "",
            "entity": "a",
            "fact": "f",
            "kind": "element",
            "bucket": 0,
            "rare": True,
        }
        scores = {name: {"correct": [right], "common_loss": 0.1} for name, right in series.items()}
        return {"variant": variant, "seed": seed, "series": scores, "questions": [question]}

    memory = [result("memory", seed, {"fetched": True, "blocked": False}) for seed in (0, 1)]
    found = differences([*memory, result("baseline", 1, {"baseline": False})])["all_facts"]
    assert found["fetched - baseline"] == {"mean": 1.0, "low": 1.0, "high": 1.0, "seeds": 1}
    assert found["blocked - baseline"]["mean"] == 0
    assert "fetched - generic" not in found


def test_the_spread_of_one_seed_is_none():
    assert spread([0.5]) == {"mean": 0.5, "sd": 0.0, "low": 0.5, "high": 0.5, "seeds": 1}
    assert spread([0.25, 0.75])["sd"] == pytest.approx(0.35355339)


def test_a_bad_seed_list_is_one_line(folder: Path, capsys):
    assert run(folder, "depth", "--seeds", "one") == 1
    assert len(capsys.readouterr().err.splitlines()) == 1
