"""`edge-runtime synth`: a bundle of the paper's dimensions with random weights, to measure with."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from edge_bench.banks import PAPER
from edge_export.source import DTYPES
from edge_runtime.cli.verb import Verb
from edge_runtime.errors import InvalidArgumentError

AT_4_BITS = {"executorch": "8da4w", "native": "i4", "onnx": "8da4w"}


def parameters(text: str) -> float:
    """ "4.6B" and the like, as argparse calls it."""
    if not (match := re.fullmatch(r"(\d+(?:\.\d+)?)([MB])", text)):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of parameters, such as 4.6B or 200M")
    return float(match[1]) * {"M": 1e6, "B": 1e9}[match[2]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("anchor", choices=tuple(PAPER), help="whose dimensions (Pouransari et al. 2025)")
    parser.add_argument(
        "-o", "--out", type=Path, required=True, metavar="BUNDLE", help="the bundle's directory"
    )
    parser.add_argument(
        "--bank",
        type=parameters,
        metavar="PARAMETERS",
        help="of the bank, such as 4.6B; one smaller than the paper's has blocks for a part of the tree "
        "(default: the paper's)",
    )
    parser.add_argument(
        "--memory-dtype", default="i8", choices=("f16", "i8", "i4"), help="of the bank (default: i8)"
    )
    parser.add_argument(
        "--engine",
        default="executorch",
        choices=tuple(AT_4_BITS),
        help="of the program; native streams its weights, so that writing never takes more than 1 GB of memory; "
        "executorch and onnx export them once, with several times the anchor in f32 (default: executorch)",
    )
    parser.add_argument(
        "--anchor-dtype",
        metavar="DTYPE",
        help="of the program's weights: f32, int8 or 8da4w; of the native engine f32, f16, i8 or i4 "
        "(default: at 4 bits)",
    )
    parser.add_argument(
        "--sparse",
        action="store_true",
        help="a bank of holes, which takes no disk: for what is resident, never for time",
    )
    parser.add_argument("--seed", type=int, default=0, help="of all weights (default: 0)")


def run(arguments: argparse.Namespace) -> int:
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    out: Path = arguments.out
    if out.exists() and not (out / "synth.json").is_file():
        raise InvalidArgumentError(f"{out}: it exists and is not of synth: name another directory")
    if arguments.seed < 0:
        raise InvalidArgumentError(f"--seed {arguments.seed}: it must be 0 or more")
    dtypes = DTYPES[arguments.engine]
    dtype = arguments.anchor_dtype or AT_4_BITS[arguments.engine]
    if dtype not in dtypes:
        raise InvalidArgumentError(f"--anchor-dtype {dtype}: {arguments.engine} has {', '.join(dtypes)}")
    from edge_bench.synthetic import Synthetic

    plan = Synthetic(
        arguments.anchor,
        arguments.bank,
        arguments.memory_dtype,
        dtype,
        arguments.seed,
        arguments.engine,
        arguments.sparse,
    )
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("the bank", total=plan.bank_bytes)
        for path, size in plan.write_bank(out):
            progress.update(task, description=path.name, advance=size)
    plan.write_rest(out, lambda step: console.print(f"  {step}"))
    console.print(
        f"wrote {out}: {plan.anchor.parameters / 1e6:,.0f}M parameters in {plan.anchor_dtype}, "
        f"a bank of {plan.bank_bytes / 1e9:,.2f} GB in {plan.memory_dtype}"
        + (", all of it holes" if plan.sparse else "")
    )
    return 0


VERB = Verb("synth", "write a bundle of random weights, of the paper's dimensions", add_arguments, run)
