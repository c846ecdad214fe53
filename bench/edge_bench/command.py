"""What the benchmarks' command lines share: one line for each failure, and exit codes as the console script's."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from edge_runtime.cli.main import FAILURE, INTERRUPTED, Parser, one_line_of_system
from edge_runtime.errors import EdgeRuntimeError, InvalidArgumentError, UnsupportedError

HINT = "pip install 'edge-runtime[bench]'"


def say(program: str, text: str) -> None:
    """Progress, beside what goes to the standard output."""
    print(f"{program}: {text}", file=sys.stderr, flush=True)


def progress(verb: str) -> Callable[[str], None]:
    """Says how far a verb of the console script is."""
    return lambda text: say(f"edge-runtime {verb}", text)


def require_linux() -> None:
    if sys.platform != "linux":
        raise UnsupportedError("the benchmarks need Linux: O_DIRECT, mincore and control groups")


def verb_command(verb: str) -> str:
    """What to type to have a verb of the console script measure again."""
    typed = sys.argv[1:]
    # Called from Python, as a test does: what else was typed is not ours.
    return shlex.join(["edge-runtime", *(typed if typed[:1] == [verb] else [verb])])


def check_folder(path: Path | None) -> None:
    """That a file can be written there, before minutes are spent on what it is to hold. InvalidArgumentError."""
    if path is not None and not (path.parent.is_dir() and os.access(path.parent, os.W_OK)):
        raise InvalidArgumentError(f"{path}: {path.parent} is not a folder that can be written to")
    if path is not None and path.is_dir():
        raise InvalidArgumentError(f"{path}: it is a folder: name a file")


def tell(
    record: dict[str, Any], as_json: bool, save: Path | None, tables: Callable[[dict[str, Any]], str]
) -> None:
    """Writes a record to `save`, if that is given, and prints it, or what `tables` makes of it."""
    text = json.dumps(record, indent=1) + "\n"
    if save is not None:
        save.write_text(text, encoding="utf-8")
    sys.stdout.write(text if as_json else tables(record))


def guarded(parser: Parser, run: Callable[[argparse.Namespace], int], arguments: Sequence[str] | None) -> int:
    """Parses, runs, and turns a failure into one line and an exit code. EDGE_RUNTIME_DEBUG=1 shows tracebacks."""
    parsed = parser.parse_args(arguments)
    try:
        require_linux()
        return run(parsed)
    except KeyboardInterrupt:
        say(parser.prog, "interrupted")
        return INTERRUPTED
    except (EdgeRuntimeError, OSError, ImportError) as error:
        if os.environ.get("EDGE_RUNTIME_DEBUG") == "1":
            raise
        text = one_line_of_system(error) or " ".join(str(error).split()) or type(error).__name__
        say(parser.prog, f"{text}: {HINT}" if isinstance(error, ImportError) else text)
        return FAILURE
