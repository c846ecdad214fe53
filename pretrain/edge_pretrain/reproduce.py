"""The demo's claim over several seeds, with its controls: python -m edge_pretrain.reproduce -o DIR --seeds 3

baseline       the anchor alone, as many training tokens as both phases together
dense_control  the same with the fetched rows added to every FFN layer: more parameters, no retrieval
generic, fetched, blocked   the co-trained model (Pouransari et al. 2025, section 4)

Every model of every seed is trained once and kept: a run that was stopped goes on where it was. Models so small
leave a second thread little to do, so several are trained at once, a thread each.
"""

import argparse
import io
import json
import multiprocessing
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from edge_pretrain.corpus.questions import Question
from edge_pretrain.data import Embedded, Prepared
from edge_pretrain.evaluate import Mode
from edge_pretrain.figures import accuracy_by_bucket
from edge_pretrain.loop import TrainingInterruptedError
from edge_pretrain.memories import MemoryBank
from edge_pretrain.model import Anchor
from edge_pretrain.pipeline import Run, control, embedded, trained
from edge_pretrain.provenance import provenance
from edge_pretrain.recipe import Recipe, load_recipe
from edge_pretrain.scores import Examination, Scores, test_questions

Model = Literal[
    "memory", "baseline", "dense_control"
]  # what is trained; "memory" has the variants from generic on
MODELS: tuple[Model, ...] = ("memory", "dense_control", "baseline")  # the slowest first
VARIANTS = ("baseline", "dense_control", "generic", "fetched", "blocked")
BUCKETS = 5
RESAMPLES = 10_000
# What is reported: every fact of the elements, and the paper's own probe.
FACTS = {"all_facts": None, "atomic_number": "atomic number"}


@dataclass(frozen=True)
class Reproduction:
    """What is trained, and where: `out`/seed<n> holds a seed's run."""

    recipe: Recipe
    out: Path
    embedder: str | None
    threads: int

    def run(self, seed: int, console: Console) -> Run:
        return Run(self.recipe, seed, self.out / f"seed{seed}", console)

    def prepare(self, run: Run) -> tuple[Prepared, Embedded]:
        embed = embedded(run.directory / "prepared", self.embedder, run.console)
        return run.prepare(embed), embed

    def train(self, seed: int, model: Model, console: Console) -> tuple[Anchor, MemoryBank | None]:
        """One model of one seed; what is trained already is loaded. Sets torch's threads."""
        torch.set_num_threads(self.threads)
        run = self.run(seed, console)
        prepared, _ = self.prepare(run)
        if model == "memory":
            return trained(run, prepared)
        extra_ffn = run.memory_config.fetched_rows if model == "dense_control" else 0
        return control(run, prepared, model, extra_ffn), None


def _train_quietly(reproduction: Reproduction, seed: int, model: Model) -> None:
    reproduction.train(seed, model, Console(file=io.StringIO()))


def train_all(reproduction: Reproduction, seeds: int, jobs: int, console: Console) -> None:
    """Every model of every seed, `jobs` processes at once. Raises TrainingInterruptedError."""
    for seed in range(seeds):
        reproduction.prepare(reproduction.run(seed, console))
    units = [(seed, model) for seed in range(seeds) for model in MODELS]
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    # Not forked: torch's threads do not survive a fork.
    with (
        ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool,
        Progress(*columns, console=console) as progress,
    ):
        task = progress.add_task(f"training, {jobs} at a time", total=len(units))
        under_way = {pool.submit(_train_quietly, reproduction, *unit): unit for unit in units}
        try:
            for done in as_completed(under_way):
                done.result()
                seed, model = under_way[done]
                console.print(f"seed {seed}: {model.replace('_', ' ')} trained")
                progress.advance(task)
        except BaseException:
            # Those under way save their state; the others must not begin.
            pool.shutdown(cancel_futures=True)
            raise


def seed_results(
    reproduction: Reproduction, seed: int, console: Console
) -> tuple[list[Question], dict[str, Scores]]:
    """The questions of a seed, and the scores of every variant."""
    prepared, embed = reproduction.prepare(reproduction.run(seed, console))
    exam = Examination(prepared, embed, test_questions(prepared))
    models = {model: reproduction.train(seed, model, console) for model in MODELS}
    anchor, bank = models["memory"]
    scores = {name: exam(models[name][0], None, "baseline") for name in ("baseline", "dense_control")}
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


def reproduce(reproduction: Reproduction, seeds: int, jobs: int, console: Console) -> Path:
    """Train and score what is not there yet; writes results.json and accuracy.png. Returns the former."""
    out = reproduction.out
    train_all(reproduction, seeds, jobs, console)
    found = {seed: seed_results(reproduction, seed, console) for seed in range(seeds)}
    configuration = reproduction.recipe.to_json() | {"seeds": seeds, "threads": reproduction.threads}
    results = summarize(found) | {"provenance": provenance(0, configuration)}
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


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m edge_pretrain.reproduce", description=__doc__.splitlines()[0]
    )
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3, help="0, 1, ... (default: 3)")
    parser.add_argument("--recipe", default="demo")
    parser.add_argument("--embedder", help="all-MiniLM-L6-v2, a directory or Hugging Face id")
    parser.add_argument("--jobs", type=int, default=2, help="trainings at a time (default: 2)")
    parser.add_argument("--threads", type=int, default=1, help="of torch, of each (default: 1)")
    options = parser.parse_args(arguments)
    console = Console(highlight=False, soft_wrap=True)
    if min(options.seeds, options.jobs, options.threads) < 1:
        parser.error("--seeds, --jobs and --threads must be 1 or more")
    try:
        recipe = load_recipe(options.recipe)
        reproduction = Reproduction(recipe, options.out, options.embedder, options.threads)
        path = reproduce(reproduction, options.seeds, options.jobs, console)
    except (TrainingInterruptedError, KeyboardInterrupt):
        print("stopped; run again to resume", file=sys.stderr)
        return 130
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    console.print(f"wrote {path} and {path.with_name('accuracy.png')}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
