"""Run an ablation, or say what its finished runs found: python -m edge_pretrain.experiments NAME

Every variant of every seed is a run of its own, kept once it is finished: stop at any time, run again to go on.
Experiments share the runs that they have in common. Writes OUT/NAME/results.json and OUT/NAME/NAME.png after
each run; several commands with different --seeds may work side by side.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from edge_pretrain.experiments.definitions import EXPERIMENTS, Experiment
from edge_pretrain.experiments.summary import Result, draw, summarize
from edge_pretrain.experiments.units import Laboratory, Unit
from edge_pretrain.loop import TrainingInterruptedError
from edge_pretrain.provenance import provenance
from edge_pretrain.recipe import load_recipe

COLUMNS = ("rarest_fifth", "2nd", "3rd", "4th", "most_frequent", "common_loss")


def write_results(laboratory: Laboratory, experiment: Experiment, results: list[Result]) -> Path:
    """results.json and the figure of what is finished."""
    out = laboratory.out / experiment.name
    recipe = load_recipe(laboratory.recipe, laboratory.changes)
    summary = summarize(experiment, results)
    draw(experiment, results, summary, out / f"{experiment.name}.png")
    path = out / "results.json"
    temporary = path.with_suffix(".tmp")
    configuration = recipe.to_json() | {"threads": torch.get_num_threads()}
    temporary.write_text(json.dumps(summary | {"provenance": provenance(0, configuration)}, indent=2) + "\n")
    temporary.replace(path)
    return path


def show(summary: Result, console: Console) -> None:
    """Means over the seeds, with their standard deviations."""
    table = Table("", "seeds", *(c.replace("_", " ") for c in COLUMNS), title=summary["claim"])
    for name, found in summary["summary"].items():
        cells = [
            f"{100 * found[c]['mean']:.1f} ± {100 * found[c]['sd']:.1f}"
            for c in COLUMNS
            if c != "common_loss"
        ]
        cells.append(f"{found['common_loss']['mean']:.4f}")
        table.add_row(name, str(found[COLUMNS[0]]["seeds"]), *cells)
    console.print(table)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m edge_pretrain.experiments", description=__doc__.splitlines()[0]
    )
    parser.add_argument("name", choices=EXPERIMENTS)
    parser.add_argument("-o", "--out", type=Path, default=Path("runs/experiments"))
    parser.add_argument("--recipe", default="demo")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change the recipe")
    parser.add_argument("--seeds", default="0,1,2", metavar="N,...", help="(default: 0,1,2)")
    parser.add_argument("--embedder", help="all-MiniLM-L6-v2, a directory or Hugging Face id")
    parser.add_argument("--threads", type=int, default=1, help="of torch (default: 1)")
    parser.add_argument("--json", action="store_true", help="print what the finished runs found; run nothing")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    experiment = EXPERIMENTS[options.name]
    laboratory = Laboratory(options.out, options.recipe, tuple(options.set), options.embedder, console)
    try:
        seeds = [int(seed) for seed in options.seeds.split(",")]
        variants = experiment.variants(load_recipe(options.recipe, options.set))
        units = [Unit(laboratory, experiment.name, v, seed) for seed in seeds for v in variants]
        for unit in units if not options.json else ():
            console.print(f"{experiment.name}: seed {unit.seed}, {unit.variant.name}")
            unit.finish()
            write_results(laboratory, experiment, [r for u in units if (r := u.result()) is not None])
    except (TrainingInterruptedError, KeyboardInterrupt):
        print("stopped; run again to resume", file=sys.stderr)
        return 130
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    summary = summarize(experiment, [r for u in units if (r := u.result()) is not None])
    if options.json:
        kept = ("experiment", "claim", "summary", "differences", "sizes")
        print(json.dumps({key: summary[key] for key in kept}, indent=2))
    else:
        show(summary, console)
    return 0


if __name__ == "__main__":
    sys.exit(main())
