import json
from pathlib import Path

import pytest
from tiny_recipe import TINY

from edge_pretrain import reproduce
from edge_pretrain.train import Trainer


def run(recipe: Path, out: Path) -> int:
    return reproduce.main(["-o", str(out), "--seeds", "1", "--jobs", "2", "--recipe", str(recipe)])


@pytest.mark.slow
def test_results_by_bucket_variant_and_seed_and_a_second_run_trains_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    recipe = tmp_path / "tiny.toml"
    recipe.write_text(TINY)
    out = tmp_path / "out"
    assert run(recipe, out) == 0
    results = json.loads((out / "results.json").read_text())
    for fact in ("all_facts", "atomic_number"):
        assert results["accuracy"][fact].keys() == set(reproduce.VARIANTS)
        for seeds in results["accuracy"][fact].values():
            assert len(seeds["0"]) == reproduce.BUCKETS
            assert all(0 <= accuracy <= 1 for accuracy in seeds["0"])
    assert results["common_loss"]["fetched"]["0"] != results["common_loss"]["baseline"]["0"]
    found = results["rarest_fifth"]["all_facts"]["fetched - baseline"]
    assert found["low"] <= found["mean"] <= found["high"]
    assert results["provenance"]["configuration"]["seeds"] == 1
    assert (out / "accuracy.png").stat().st_size > 10_000

    def no_step(_: Trainer) -> tuple[float, float]:
        raise AssertionError("trained again")

    monkeypatch.setattr(Trainer, "train_step", no_step)
    assert run(recipe, out) == 0
    again = json.loads((out / "results.json").read_text())
    assert {key: again[key] for key in ("accuracy", "common_loss")} == {
        key: results[key] for key in ("accuracy", "common_loss")
    }


def test_the_interval_covers_what_the_seeds_differ_by():
    import numpy as np

    same = reproduce.interval([np.full(20, 0.5), np.full(20, 0.5)])
    assert same["low"] == same["mean"] == same["high"] == 0.5
    apart = reproduce.interval([np.full(20, 0.2), np.full(20, 0.8)])
    assert apart["mean"] == pytest.approx(0.5)
    assert apart["low"] == pytest.approx(0.2)
    assert apart["high"] == pytest.approx(0.8)


def test_an_unknown_recipe_is_one_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    assert reproduce.main(["-o", str(tmp_path), "--recipe", "nonesuch"]) == 1
    assert capfd.readouterr().err.startswith("nonesuch: neither a recipe")
