"""What the benchmarks' command lines share: one line for each failure, and exit codes as the console script's."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence

from edge_runtime.cli.main import FAILURE, INTERRUPTED, Parser
from edge_runtime.errors import EdgeRuntimeError, UnsupportedError

HINT = "pip install 'edge-runtime[bench]'"


def say(program: str, text: str) -> None:
    """Progress, beside what goes to the standard output."""
    print(f"{program}: {text}", file=sys.stderr, flush=True)


def guarded(parser: Parser, run: Callable[[argparse.Namespace], int], arguments: Sequence[str] | None) -> int:
    """Parses, runs, and turns a failure into one line and an exit code. EDGE_RUNTIME_DEBUG=1 shows tracebacks."""
    parsed = parser.parse_args(arguments)
    try:
        if sys.platform != "linux":
            raise UnsupportedError("the benchmarks need Linux: O_DIRECT, mincore and control groups")
        return run(parsed)
    except KeyboardInterrupt:
        say(parser.prog, "interrupted")
        return INTERRUPTED
    except (EdgeRuntimeError, OSError, ImportError) as error:
        if os.environ.get("EDGE_RUNTIME_DEBUG") == "1":
            raise
        text = " ".join(str(error).split()) or type(error).__name__
        say(parser.prog, f"{text}: {HINT}" if isinstance(error, ImportError) else text)
        return FAILURE
