"""What a verb of the console script is; other packages join with entry points in `ENTRY_POINT_GROUP`."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass

ENTRY_POINT_GROUP = "edge_runtime.verbs"


@dataclass(frozen=True)
class Verb:
    """One verb: `run` gets the parsed arguments and returns the exit code.

    `run` reports failures by raising `EdgeRuntimeError` or `OSError`; the script prints them as one line.
    """

    name: str
    help: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]
