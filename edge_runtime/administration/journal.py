"""The journal of a change: which files it may leave behind (docs/bundle-format.md, "Changing a bundle").

It is written before the first of them is made. Whatever it names and the manifest does not is left over from a change
that was cut short, or superfluous after one that was not, and is removed; nothing else ever is.
"""

from __future__ import annotations

import json
import os
from collections.abc import Container, Iterable
from pathlib import Path, PurePosixPath

from edge_runtime import _core
from edge_runtime.errors import BadFormatError

FORMAT = "edge-runtime.journal"
NAME = "journal.json"
PARTIAL = ".partial"  # what the core appends to a file's name while it writes it


class Journal:
    """At most one a bundle, in the folder of its state file. REQUIRES the bundle's lock."""

    def __init__(self, directory: Path, folder: PurePosixPath) -> None:
        self._directory = directory
        self._path = directory / folder / NAME

    def write(self, names: Iterable[str]) -> None:
        """Announces a change that makes or supersedes the files of these names."""
        text = json.dumps({"format": FORMAT, "schema": 1, "files": sorted(names)}) + "\n"
        _core.write_file(str(self._path), text)

    def clear(self, kept: Container[str]) -> None:
        """Removes the named files but those `kept`, what half-written files there are, and the journal.

        Raises:
            BadFormatError: the file of the journal's name is none.
            OSError: a file could not be removed; the journal is kept for another attempt.
        """
        names = self._names()
        leftovers = [self._path.with_name(NAME + PARTIAL), self._directory / f"manifest.json{PARTIAL}"]
        leftovers += [self._directory / f"{name}{PARTIAL}" for name in names]
        leftovers += [self._directory / name for name in names if name not in kept]
        for path in leftovers:
            path.unlink(missing_ok=True)
        if names:
            for folder in {path.parent for path in leftovers}:
                _flush(folder)
            self._path.unlink()

    def _names(self) -> list[str]:
        try:
            record = json.loads(self._path.read_bytes())
            names = record["files"]
            known = record["format"] == FORMAT and record["schema"] == 1 and isinstance(names, list)
        except FileNotFoundError:
            return []
        except (ValueError, KeyError, TypeError, RecursionError):
            known = False
        # A bundle may come from anywhere: its journal must not reach beyond it, nor remove the manifest.
        if not known or not all(
            isinstance(name, str) and _core.is_safe_path(name) and name != "manifest.json" for name in names
        ):
            raise BadFormatError(f"{self._path}: not a journal of this version: move it out of the bundle")
        return [str(name) for name in names]


def _flush(folder: Path) -> None:
    """Makes removals last: what is erased must not come back with a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
