"""From finished units to results.json and a figure: per seed, and means with their spreads."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edge_pretrain.experiments.definitions import Experiment
from edge_pretrain.experiments.units import questions_of, scores_of
from edge_pretrain.figures import accuracy_by_bucket, bars
from edge_pretrain.reproduce import BUCKETS, FACTS, by_bucket, interval, rare_differences

Result = dict[str, Any]


def _name(result: Result, series: str) -> str:
    """The variant, with its way of reading where it has several."""
    return result["variant"] if len(result["series"]) == 1 else f"{result['variant']}, {series}"


def measures(result: Result, series: str) -> dict[str, float]:
    """Accuracies on all facts of the elements, from the rarest fifth to the most frequent, and the common loss."""
    questions, scores = questions_of(result), scores_of(result, series)
    accuracies = by_bucket(questions, scores.correct, None)
    names = ("rarest_fifth", "2nd", "3rd", "4th", "most_frequent")
    return dict(zip(names, accuracies, strict=True)) | {
        "all": float(np.mean(scores.correct)),
        "common_loss": scores.common_loss,
    }


def spread(values: Sequence[float]) -> dict[str, float]:
    """sd: over the seeds, 0 of one alone."""
    sd = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
    return {
        "mean": float(np.mean(values)),
        "sd": sd,
        "low": min(values),
        "high": max(values),
        "seeds": len(values),
    }


def summarize(experiment: Experiment, results: Sequence[Result]) -> Result:
    """What results.json holds of the finished units."""
    runs: dict[str, dict[str, dict[str, float]]] = {}
    sizes: dict[str, dict[str, int]] = {}
    for result in results:
        for series in result["series"]:
            name = _name(result, series)
            runs.setdefault(name, {})[str(result["seed"])] = measures(result, series)
            sizes[name] = {key: value for key, value in result.items() if key.endswith("_parameters")}
    means = {
        name: {key: spread([run[key] for run in seeds.values()]) for key in next(iter(seeds.values()))}
        for name, seeds in runs.items()
    }
    return {
        "experiment": experiment.name,
        "claim": experiment.claim,
        "summary": means,
        "differences": differences(results),
        "sizes": sizes,
        "seeds": runs,
    }


def differences(results: Sequence[Result]) -> dict[str, dict[str, Any]]:
    """Rarest fifth, fetched against each control and blocked against the baseline: 95% over seeds and elements."""
    by = {(r["variant"], r["seed"]): r for r in results}
    pairs = {
        "fetched - baseline": (("memory", "fetched"), ("baseline", "baseline")),
        "fetched - dense_control": (("memory", "fetched"), ("dense_control", "baseline")),
        "fetched - generic": (("memory", "fetched"), ("memory", "generic")),
        "blocked - baseline": (("memory", "blocked"), ("baseline", "baseline")),
    }
    found: dict[str, dict[str, Any]] = {}
    for label, ((one, series), (other, other_series)) in pairs.items():
        seeds = [
            seed
            for variant, seed in by
            if variant == one
            and series in by[one, seed]["series"]
            and other_series in by.get((other, seed), {"series": ()})["series"]
        ]
        for fact_name, fact in FACTS.items() if seeds else ():
            samples = [
                rare_differences(
                    questions_of(by[one, seed]),
                    scores_of(by[one, seed], series).correct,
                    scores_of(by[other, seed], other_series).correct,
                    fact,
                )
                for seed in seeds
            ]
            found.setdefault(fact_name, {})[label] = interval(samples) | {"seeds": len(seeds)}
    return found


def draw(experiment: Experiment, results: Sequence[Result], summary: Result, path: Path) -> None:
    """The experiment's figure."""
    if experiment.name != "figure1":
        bars(summary["seeds"], experiment.claim, path)
        return
    accuracy: dict[str, Any] = {name: {} for name in FACTS}
    for result in results:
        for series in result["series"]:
            variant = series if result["variant"] == "memory" else result["variant"]
            correct = scores_of(result, series).correct
            for name, fact in FACTS.items():
                values = by_bucket(questions_of(result), correct, fact)
                accuracy[name].setdefault(variant, {})[str(result["seed"])] = values[:BUCKETS]
    accuracy_by_bucket(accuracy, path)
