"""The frozen phase as independent jobs, one a level-1 subtree, and their merging.

python -m edge_pretrain.subtrees train -o RUN --recipe FILE --unit N     N = 0 .. fanout; the last is the generic memory
python -m edge_pretrain.subtrees merge -o RUN --recipe FILE

Memories of a Hugging Face anchor take `--anchor FOLDER` besides, and may do without a recipe.

The jobs share RUN, or copies of it, and may run anywhere and in any order. `merge` leaves the state that one job
for all would have left, bit for bit, and `edge-runtime pretrain` goes on from there to the checkpoint.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from rich.console import Console

from edge_pretrain.frozen import FrozenTrainer
from edge_pretrain.loop import SAVE_EVERY, TrainingInterruptedError, load_state, run_phase, save_state
from edge_pretrain.pipeline import Run
from edge_pretrain.recipe import load_recipe
from edge_runtime.errors import EdgeRuntimeError


class FrozenRun(Protocol):
    """`edge_pretrain.pipeline.Run`, `edge_pretrain.posthoc.pipeline.PosthocRun`."""

    @property
    def console(self) -> Console: ...
    @property
    def phases(self) -> Path: ...
    @property
    def units(self) -> int: ...
    def frozen_job(self, embedder: str | None, units: Sequence[int]) -> FrozenTrainer: ...
    def frozen_fingerprint(self, name: str) -> str: ...


def merged(states: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The state of one job out of those of jobs for different units, all at the same step."""
    if len({state["step"] for state in states}) != 1:
        raise ValueError("merge: the jobs stopped at different steps; run each of them to its end")
    tables = {key: table for state in states for key, table in state["tables"].items()}
    units = sorted(unit for state in states for unit in state["units"])
    return {"step": states[0]["step"], "units": units, "tables": tables}


def _name(unit: int) -> str:
    return f"frozen-unit{unit:02d}"


def train_unit(run: FrozenRun, embedder: str | None, unit: int) -> None:
    """All that comes before the phase, if it is not done yet, then one unit.

    Raises:
        TrainingInterruptedError: Ctrl-C; run again to resume.
        ValueError, EdgeRuntimeError: one line on what cannot be used.
    """
    name = _name(unit)
    trainer = run.frozen_job(embedder, [unit])
    run_phase(trainer, run.phases, name, run.frozen_fingerprint(name), SAVE_EVERY, run.console)


def merge(run: FrozenRun) -> Path:
    """Join the states of all units into that of the phase; returns its file. Raises ValueError for a missing job."""
    states = []
    for unit in range(run.units):
        path = run.phases / f"{_name(unit)}.pt"
        state = load_state(path, run.frozen_fingerprint(_name(unit)))
        if state is None:
            raise ValueError(f"{path}: no finished job of this recipe; run `train --unit {unit}`")
        states.append(state)
    out = run.phases / "frozen.pt"
    save_state(out, merged(states) | {"fingerprint": run.frozen_fingerprint("frozen")})
    return out


def _run(options: argparse.Namespace, console: Console) -> FrozenRun:
    """Raises RecipeError, and EdgeRuntimeError for a folder that is no anchor."""
    if options.anchor is None:
        if options.recipe is None:
            raise ValueError("--recipe: name one with [phases.frozen], or a Hugging Face --anchor")
        return Run(load_recipe(options.recipe, options.set), options.seed, options.out, console)
    from edge_pretrain.hf_folder import AnchorFolder
    from edge_pretrain.posthoc.pipeline import PosthocRun
    from edge_pretrain.posthoc.recipe import load_posthoc_recipe

    recipe = load_posthoc_recipe(options.recipe, options.set)
    return PosthocRun(recipe, options.seed, options.out, console, AnchorFolder.open(options.anchor))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m edge_pretrain.subtrees", description=__doc__.splitlines()[0]
    )
    parser.add_argument("verb", choices=("train", "merge"))
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="RUN")
    parser.add_argument("--recipe")
    parser.add_argument("--anchor", type=Path, metavar="FOLDER", help="a Hugging Face model")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change the recipe")
    parser.add_argument("--unit", type=int, help="a level-1 node, or the fanout for the generic memory")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--embedder", help="all-MiniLM-L6-v2, a directory or Hugging Face id")
    parser.add_argument("--threads", type=int, default=2, help="of torch (default: 2)")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    try:
        run = _run(options, console)
        if options.verb == "merge":
            console.print(f"wrote {merge(run)}")
        elif options.unit is None or not 0 <= options.unit < run.units:
            parser.error(f"--unit must be 0 to {run.units - 1}")
        else:
            train_unit(run, options.embedder, options.unit)
    except (TrainingInterruptedError, KeyboardInterrupt):
        print("stopped; run again to resume", file=sys.stderr)
        return 130
    except (ValueError, EdgeRuntimeError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
