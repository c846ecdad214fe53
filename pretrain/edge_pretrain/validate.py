"""Try hyperparameters on held-out entities: python -m edge_pretrain.validate -o DIR --variant memory [--set K=V ...]

Questions are about the synthetic people and places, never about the elements that results are reported on.
Appends one line to DIR/results.jsonl and prints it.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

from edge_pretrain.cache import digest
from edge_pretrain.evaluate import Mode
from edge_pretrain.loop import TrainingInterruptedError
from edge_pretrain.pipeline import Run, control, embedded, trained
from edge_pretrain.recipe import load_recipe
from edge_pretrain.scores import Examination, validation_questions


def validate(run: Run, variant: str) -> dict[str, Any]:
    """Accuracy on the rarest and on the most frequent fifth, and the common loss, for each mode of a variant."""
    embed = embedded(run.directory / "prepared", None, run.console)
    prepared = run.prepare(embed)
    exam = Examination(prepared, embed, validation_questions(prepared))
    bank = None
    modes: tuple[Mode, ...] = ("baseline",)
    if variant == "memory":
        anchor, bank = trained(run, prepared)
        modes = ("generic", "fetched", "blocked")
    else:
        extra = run.memory_config.fetched_rows if variant == "dense_control" else 0
        anchor = control(run, prepared, variant, extra)
    buckets = np.array([question.bucket for question in exam.questions])
    found: dict[str, Any] = {}
    for mode in modes:
        scores = exam(anchor, bank, mode)
        correct = np.array(scores.correct)
        found[mode] = {
            "rarest": round(float(correct[buckets == 0].mean()), 3),
            "most_frequent": round(float(correct[buckets == 4].mean()), 3),
            "common_loss": round(scores.common_loss, 4),
        }
    return found


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m edge_pretrain.validate")
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--recipe", default="demo")
    parser.add_argument("--variant", choices=("memory", "baseline", "dense_control"), required=True)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change the recipe")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2, help="of torch (default: 2)")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    try:
        recipe = load_recipe(arguments.recipe, arguments.set)
        label = digest([recipe.fingerprint(arguments.seed), arguments.variant])
        found = validate(Run(recipe, arguments.seed, arguments.out, console, label), arguments.variant)
    except TrainingInterruptedError as error:
        print(error, file=sys.stderr)
        return 130
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    setting = {"variant": arguments.variant, "seed": arguments.seed, "set": arguments.set}
    line = json.dumps(setting | found)
    with (arguments.out / "results.jsonl").open("a") as file:
        file.write(line + "\n")
    print(line)
    return 0


if __name__ == "__main__":
    sys.exit(main())
