"""The demo's claim over several seeds, with its controls: python -m edge_pretrain.reproduce -o DIR --seeds 3

baseline       the anchor alone, as many training tokens as both phases together
dense_control  the same with the fetched rows added to every FFN layer: more parameters, no retrieval
generic, fetched, blocked   the co-trained model (Pouransari et al. 2025, section 4)

Every variant of every seed is trained once and kept: a run that was stopped goes on where it was.
"""

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from edge_pretrain.corpus.questions import Question
from edge_pretrain.evaluate import Mode
from edge_pretrain.figures import accuracy_by_bucket
from edge_pretrain.loop import TrainingInterruptedError
from edge_pretrain.pipeline import Run, control, cotrained, embedded
from edge_pretrain.provenance import provenance
from edge_pretrain.recipe import load_recipe
from edge_pretrain.scores import Examination, Scores, test_questions

VARIANTS = ("baseline", "dense_control", "generic", "fetched", "blocked")
BUCKETS = 5
RESAMPLES = 10_000
# What is reported: every fact of the elements, and the paper's own probe.
FACTS = {"all_facts": None, "atomic_number": "atomic number"}


def seed_results(run: Run, embedder: str | None) -> tuple[list[Question], dict[str, Scores]]:
    """The questions of a seed, and the scores of every variant."""
    embed = embedded(run.directory / "prepared", embedder, run.console)
    prepared = run.prepare(embed)
    exam = Examination(prepared, embed, test_questions(prepared))
    extra_ffn = {"baseline": 0, "dense_control": run.memory_config.fetched_rows}
    scores = {
        name: exam(control(run, prepared, name, extra), None, "baseline") for name, extra in extra_ffn.items()
    }
    anchor, bank = cotrained(run, prepared)
    modes: tuple[Mode, ...] = ("generic", "fetched", "blocked")
    return exam.questions, scores | {mode: exam(anchor, bank, mode) for mode in modes}


def by_bucket(questions: list[Question], correct: list[bool], fact: str | None) -> list[float]:
    """Accuracy from the rarest fifth of the elements to the most frequent."""
    return [
        float(
            np.mean(
                [
                    c
                    for q, c in zip(questions, correct, strict=True)
                    if q.bucket == b and fact in (None, q.fact)
                ]
            )
        )
        for b in range(BUCKETS)
    ]


def rare_differences(
    questions: list[Question], one: list[bool], other: list[bool], fact: str | None
) -> NDArray[np.float64]:
    """For each element of the rarest fifth, the difference of its accuracies."""
    found: dict[str, list[float]] = {}
    for question, a, b in zip(questions, one, other, strict=True):
        if question.bucket == 0 and fact in (None, question.fact):
            found.setdefault(question.entity, []).append(float(a) - float(b))
    return np.array([np.mean(values) for values in found.values()])


def interval(samples: list[NDArray[np.float64]]) -> dict[str, float]:
    """Mean and 95% bootstrap interval: seeds are drawn again, and within each its elements."""
    random = np.random.default_rng(0)
    means = np.empty(RESAMPLES)
    for i in range(RESAMPLES):
        drawn = random.integers(len(samples), size=len(samples))
        means[i] = np.mean([random.choice(samples[s], len(samples[s])).mean() for s in drawn])
    low, high = np.percentile(means, [2.5, 97.5])
    return {"mean": float(np.mean([s.mean() for s in samples])), "low": float(low), "high": float(high)}


def summarize(found: dict[int, tuple[list[Question], dict[str, Scores]]]) -> dict[str, Any]:
    """What results.json holds of the scores."""

    def differences(one: str, other: str, fact: str | None) -> dict[str, float]:
        return interval(
            [
                rare_differences(qs, scores[one].correct, scores[other].correct, fact)
                for qs, scores in found.values()
            ]
        )

    return {
        "accuracy": {
            name: {
                variant: {
                    str(seed): by_bucket(questions, scores[variant].correct, fact)
                    for seed, (questions, scores) in found.items()
                }
                for variant in VARIANTS
            }
            for name, fact in FACTS.items()
        },
        "common_loss": {
            variant: {str(seed): scores[variant].common_loss for seed, (_, scores) in found.items()}
            for variant in VARIANTS
        },
        "rarest_fifth": {
            name: {
                "fetched - baseline": differences("fetched", "baseline", fact),
                "fetched - dense_control": differences("fetched", "dense_control", fact),
                "blocked - baseline": differences("blocked", "baseline", fact),
            }
            for name, fact in FACTS.items()
        },
    }


def show(results: dict[str, Any], console: Console) -> None:
    """The same as tables: means over the seeds."""
    for name, variants in results["accuracy"].items():
        columns = ("rarest fifth", "2nd", "3rd", "4th", "most frequent", "common loss")
        table = Table("", *columns, title=f"{name.replace('_', ' ')} of the elements, mean over the seeds")
        for variant, seeds in variants.items():
            means = np.mean(list(seeds.values()), axis=0)
            loss = np.mean(list(results["common_loss"][variant].values()))
            table.add_row(variant, *(f"{mean:.1%}" for mean in means), f"{loss:.4f}")
        console.print(table)
        for label, found in results["rarest_fifth"][name].items():
            low, high, mean = (100 * found[key] for key in ("low", "high", "mean"))
            console.print(f"  rarest fifth, {label}: {mean:+.1f} points, 95% [{low:+.1f}, {high:+.1f}]")


def reproduce(recipe_name: str, seeds: int, out: Path, embedder: str | None, console: Console) -> Path:
    """Train and score what is not there yet; writes results.json and accuracy.png. Returns the former."""
    recipe = load_recipe(recipe_name)
    found = {}
    for seed in range(seeds):
        console.rule(f"seed {seed}")
        found[seed] = seed_results(Run(recipe, seed, out / f"seed{seed}", console), embedder)
    results = summarize(found) | {"provenance": provenance(0, recipe.to_json() | {"seeds": seeds})}
    results["questions"] = {str(seed): len(questions) for seed, (questions, _) in found.items()}
    (out / "answers.json").write_text(
        json.dumps(
            {
                str(seed): {"questions": [q.to_json() for q in questions]}
                | {v: asdict(s) for v, s in scores.items()}
                for seed, (questions, scores) in found.items()
            }
        )
    )
    accuracy_by_bucket(results["accuracy"], out / "accuracy.png")
    path = out / "results.json"
    path.write_text(json.dumps(results, indent=2) + "\n")
    show(results, console)
    return path


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m edge_pretrain.reproduce", description=__doc__.splitlines()[0]
    )
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3, help="0, 1, ... (default: 3)")
    parser.add_argument("--recipe", default="demo")
    parser.add_argument("--embedder", help="all-MiniLM-L6-v2, a directory or Hugging Face id")
    parser.add_argument("--threads", type=int, default=2, help="of torch (default: 2)")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    console = Console(highlight=False, soft_wrap=True)
    try:
        path = reproduce(arguments.recipe, arguments.seeds, arguments.out, arguments.embedder, console)
    except TrainingInterruptedError as error:
        print(error, file=sys.stderr)
        return 130
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    console.print(f"wrote {path} and {path.with_name('accuracy.png')}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
