"""The entry point: finds the verb, loads only that one, and turns failures into one line and an exit code.

Exit codes: 0 success, 1 failure, 2 usage, 130 Ctrl-C. EDGE_RUNTIME_DEBUG=1 shows tracebacks.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, NoReturn

from edge_runtime.cli.verb import ENTRY_POINT_GROUP, Verb
from edge_runtime.errors import EdgeRuntimeError

if TYPE_CHECKING:  # it takes as long to import as all of ours, and our own verbs need none of it
    from importlib import metadata

FAILURE, USAGE, INTERRUPTED = 1, 2, 130
# Summaries stand here so that --help imports no verb.
BUILT_IN = {
    "run": "answer one prompt, streaming",
    "chat": "talk, turn by turn",
    "evaluate": "answer questions with and without memory, as a table",
    "route": "show the path of a prompt, or compare the bundle's routers",
    "inspect": "show the manifest, levels and sizes of a bundle",
    "compare": "run every program of a bundle beside the torch reference",
    "verify": "check every hash and checksum of a bundle",
    "forget": "take what documents taught out of a bundle's bank",
    "personal": "export and attach a personal level, encrypted",
    "bank": "block, remove, replace or add blocks of a bundle's bank",
}

# Of verbs that this project's other packages bring, for the same reason.
OTHERS = {
    "pretrain": "train an anchor and its memory bank, or memories of a Hugging Face anchor",
    "export": "write a bundle from a checkpoint",
    "teach": "teach documents to a bundle's memory bank",
    "bench": "measure a bundle: tokens a second, fetches, first tokens, memory",
    "footprint": "find the smallest memory limit that a bundle answers in",
    "simulate": "simulate storage tiers: latency, energy, budgets, and which bank fits",
    "report": "make one HTML page of benchmarks' records",
    "synth": "write a bundle of random weights, of the paper's dimensions",
}


class Parser(argparse.ArgumentParser):
    """Reports usage errors as one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(USAGE, f"{self.prog}: {message} (see {self.prog} --help)\n")


class _Version(argparse.Action):
    """--version, which reads the package's metadata only when asked."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from importlib import metadata

        try:
            version = metadata.version("edge-runtime")
        except metadata.PackageNotFoundError:
            version = "(not installed)"
        print(f"edge-runtime {version}")
        parser.exit()


class _Help(argparse.Action):
    """--help, which looks for other packages' verbs only when asked."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        summaries = BUILT_IN | {
            name: OTHERS.get(name, f"from {entry.module}") for name, entry in _external().items()
        }
        width = max(map(len, summaries))
        listing = "\n".join(f"  {name:<{width}}  {summary}" for name, summary in summaries.items())
        parser.epilog = f"verbs:\n{listing}\n\nedge-runtime VERB --help describes one."
        parser.print_help()
        parser.exit()


def _external() -> dict[str, metadata.EntryPoint]:
    from importlib import metadata

    entries = metadata.entry_points(group=ENTRY_POINT_GROUP)
    return {entry.name: entry for entry in sorted(entries, key=lambda entry: entry.name)}


def _parser() -> Parser:
    parser = Parser(
        prog="edge-runtime",
        description="On-device inference with memory paging: a small model in RAM, its memory bank on flash.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        add_help=False,
    )
    parser.add_argument("-h", "--help", action=_Help, nargs=0, help="this text")
    parser.add_argument("--version", action=_Version, nargs=0, help="the version")
    parser.add_argument("verb", metavar="VERB", nargs="?", help="what to do")
    parser.add_argument("arguments", metavar="...", nargs=argparse.REMAINDER, help="the verb's own arguments")
    return parser


def _load(name: str, parser: Parser) -> Verb:
    if name in BUILT_IN:
        verb = importlib.import_module(f"edge_runtime.cli.{name}").VERB
    else:
        external = _external()
        if name not in external:
            parser.error(f"unknown verb {name!r}; verbs are {', '.join([*BUILT_IN, *external])}")
        verb = external[name].load()
    assert isinstance(verb, Verb)
    return verb


def _run(arguments: Sequence[str]) -> int:
    parser = _parser()
    chosen = parser.parse_args(arguments)
    if chosen.verb is None:
        parser.error(f"name a verb: {', '.join([*BUILT_IN, *_external()])}")
    verb = _load(chosen.verb, parser)
    verb_parser = Parser(prog=f"edge-runtime {verb.name}", description=verb.help)
    verb.add_arguments(verb_parser)
    return verb.run(verb_parser.parse_args(chosen.arguments))


def _one_line(error: BaseException) -> str:
    if isinstance(error, ModuleNotFoundError):
        return (
            f"the Python package {error.name!r} is not installed: pip install 'edge-runtime[pretrain,export]'"
        )
    text = " ".join(str(error).split())
    if isinstance(error, EdgeRuntimeError | OSError):
        return one_line_of_system(error) or text or type(error).__name__
    if isinstance(error, MemoryError):
        return f"out of memory: {text}" if text else "out of memory"
    return f"internal error, {type(error).__name__}: {text} (EDGE_RUNTIME_DEBUG=1 shows where)"


def one_line_of_system(error: BaseException) -> str | None:
    """What the operating system refused, the file first as in all other messages; None for other errors."""
    if not isinstance(error, OSError) or error.strerror is None or error.filename is None:
        return None
    files = [str(name) for name in (error.filename, error.filename2) if name is not None]
    return f"{' and '.join(files)}: {error.strerror[:1].lower()}{error.strerror[1:]}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one verb and returns the exit code."""
    try:
        code = _run(sys.argv[1:] if arguments is None else arguments)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        print("edge-runtime: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read us has gone, as with `| head`; the interpreter must not flush into the pipe again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILURE
    except Exception as error:
        if os.environ.get("EDGE_RUNTIME_DEBUG") == "1":
            raise
        print(f"edge-runtime: {_one_line(error)}", file=sys.stderr)
        return FAILURE


if __name__ == "__main__":
    sys.exit(main())
