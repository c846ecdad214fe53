"""The frozen phase as independent jobs, one a level-1 subtree, and their merging.

python -m edge_pretrain.subtrees train -o RUN --recipe FILE --unit N     N = 0 .. fanout; the last is the generic memory
python -m edge_pretrain.subtrees merge -o RUN --recipe FILE

The jobs share RUN, or copies of it, and may run anywhere and in any order. `merge` leaves the state that one job
for all would have left, bit for bit, and `edge-runtime pretrain` goes on from there to the checkpoint.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from edge_pretrain.loop import TrainingInterruptedError, load_state, save_state
from edge_pretrain.pipeline import Run, embedded
from edge_pretrain.recipe import load_recipe


def merged(states: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The state of one job out of those of jobs for different units, all at the same step."""
    if len({state["step"] for state in states}) != 1:
        raise ValueError("merge: the jobs stopped at different steps; run each of them to its end")
    tables = {key: table for state in states for key, table in state["tables"].items()}
    units = sorted(unit for state in states for unit in state["units"])
    return {"step": states[0]["step"], "units": units, "tables": tables}


def _name(unit: int) -> str:
    return f"frozen-unit{unit:02d}"


def train_unit(run: Run, embedder: str | None, unit: int) -> None:
    """The anchor's phase, if it is not done yet, then one unit. Raises TrainingInterruptedError, ValueError."""
    prepared = run.prepare(embedded(run.directory / "prepared", embedder, run.console))
    anchor, bank = run.new_anchor(), run.new_memories()
    run.train("anchor", anchor, run.recipe.phases.anchor, prepared, 0)
    trainer, config = run.frozen_trainer(anchor, prepared, bank, [unit])
    run.finish(trainer, _name(unit), config, anchor)


def merge(run: Run, embedder: str | None) -> Path:
    """Join the states of all units into that of the phase; returns its file. Raises ValueError for a missing job."""
    prepared = run.prepare(embedded(run.directory / "prepared", embedder, run.console))
    anchor, bank = run.new_anchor(), run.new_memories()
    units = range(bank.config.fanout + 1)
    _, config = run.frozen_trainer(anchor, prepared, bank, units)
    states = []
    for unit in units:
        path = run.phases / f"{_name(unit)}.pt"
        state = load_state(path, run.fingerprint(_name(unit), config, anchor))
        if state is None:
            raise ValueError(f"{path}: no finished job of this recipe; run `train --unit {unit}`")
        states.append(state)
    out = run.phases / "frozen.pt"
    save_state(out, merged(states) | {"fingerprint": run.fingerprint("frozen", config, anchor)})
    return out


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m edge_pretrain.subtrees", description=__doc__.splitlines()[0]
    )
    parser.add_argument("verb", choices=("train", "merge"))
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="RUN")
    parser.add_argument("--recipe", required=True)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change the recipe")
    parser.add_argument("--unit", type=int, help="a level-1 node, or the fanout for the generic memory")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--embedder", help="all-MiniLM-L6-v2, a directory or Hugging Face id")
    parser.add_argument("--threads", type=int, default=2, help="of torch (default: 2)")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    try:
        recipe = load_recipe(options.recipe, options.set)
        run = Run(recipe, options.seed, options.out, console)
        if options.verb == "merge":
            console.print(f"wrote {merge(run, options.embedder)}")
        elif options.unit is None or not 0 <= options.unit <= recipe.tree.fanout:
            parser.error(f"--unit must be 0 to {recipe.tree.fanout}")
        else:
            train_unit(run, options.embedder, options.unit)
    except (TrainingInterruptedError, KeyboardInterrupt):
        print("stopped; run again to resume", file=sys.stderr)
        return 130
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
