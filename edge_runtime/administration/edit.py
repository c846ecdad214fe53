"""One change of a bundle: all of it or nothing, whenever it is cut short (docs/bundle-format.md, "Changing a bundle").

lock -> clear what a crash has left -> journal -> new files -> manifest, by one rename -> unlink old files
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from edge_runtime import _core
from edge_runtime.administration.journal import Journal
from edge_runtime.bank import LevelReader
from edge_runtime.bank_state import BankState
from edge_runtime.bundle import MANIFEST, Bundle
from edge_runtime.errors import BusyError, InvalidArgumentError, StorageError, UnsupportedError
from edge_runtime.manifest import Memory

Advance = Callable[[int], object]
"""Is told the bytes written since it was last told."""
Report = Callable[[int, int], object]
"""Is told the bytes written so far and those in all. What it raises, such as an interrupt, ends the change."""


def silent(_done: int, _total: int) -> None:
    """The report of whoever does not ask."""


@dataclass(frozen=True)
class NewFile:
    """A level file that a change adds.

    `entry` is its level's in the manifest afterwards; `name`, the new file's path, is one of its `files`.
    `write` makes the file at a path; its blocks are `bytes` long.
    """

    entry: dict[str, Any]
    name: str
    bytes: int
    write: Callable[[Path, Advance], None]


@dataclass(frozen=True)
class Attachment:
    """A file that a change adds beside the bank's levels.

    `refer` puts its name into the next manifest and returns the names of what it supersedes. `tables`: it is a level
    file, of which the hash covers header and tables.
    """

    name: str
    write: Callable[[Path], None]
    refer: Callable[[dict[str, Any]], Sequence[str]]
    tables: bool = False


@dataclass(frozen=True)
class Outcome:
    """What a command did; the revision is the previous one where nothing had to change."""

    previous_revision: int
    revision: int
    bytes_written: int = 0  # of level files
    bytes_freed: int = 0  # of level files, unlinked
    notes: tuple[str, ...] = field(default=())  # lines for whoever gave the command


class BundleEdit:
    """The bundle under its lock. `commit` once."""

    def __init__(self, bundle: Bundle, text: bytes) -> None:
        self.bundle = bundle
        self.notes: list[str] = []
        self._text = text
        self._folder = PurePosixPath(bundle.manifest.state_path).parent
        self._journal = Journal(bundle.directory, self._folder)

    @property
    def memory(self) -> Memory:
        if self.bundle.manifest.memory is None:
            raise UnsupportedError(f"{self.bundle.directory}: it has no memory bank")
        return self.bundle.manifest.memory

    @property
    def revision(self) -> int:
        """The revision that a commit makes."""
        return self.bundle.manifest.revision + 1

    def level_name(self, level: int) -> str:
        """The path of a new file of a level: no revision before had it."""
        return str(self._folder / f"level{level}-{self.revision}.safetensors")

    def level_entry(self, level: int) -> dict[str, Any]:
        """A copy of the level's entry in the manifest. REQUIRES that it has the level."""
        levels = json.loads(self._text)["memory"]["levels"]
        entry: dict[str, Any] = next(entry for entry in levels if entry["level"] == level)
        return entry

    def commit(
        self,
        state: BankState,
        new_files: Sequence[NewFile] = (),
        report: Report = silent,
        attachments: Sequence[Attachment] = (),
    ) -> Outcome:
        """Makes the change the bundle's next revision; of a state that is as it was and no files, nothing.

        Raises:
            InvalidArgumentError: a file that is not the bundle's is in the way.
            BusyError: something else has changed the manifest meanwhile.
            StorageError, OSError: the disk. In each case, and on an interrupt, the old revision is as it was.
        """
        manifest = self.bundle.manifest
        if state == self.bundle.state and not new_files and not attachments:
            return Outcome(manifest.revision, manifest.revision, notes=tuple(self.notes))
        data, made, state_text = self._next(state, new_files)
        for new_file in attachments:
            for name in new_file.refer(data):
                data["files"].pop(name, None)
            data["files"][new_file.name] = None
            made.add(new_file.name)
        superfluous = manifest.files.keys() - data["files"].keys()
        for name in made:
            if (path := self.bundle.path_of(name)).exists() or path.is_symlink():
                raise InvalidArgumentError(f"{path}: it is in the way and no part of the bundle: move it")
        total, done = sum(new.bytes for new in new_files), 0
        self._check_space(total)
        self._note_other_links(superfluous)

        def advance(count: int) -> None:
            nonlocal done
            done += count
            report(done, total)

        try:
            self._journal.write(superfluous | made)
            for new in new_files:
                path = self.bundle.path_of(new.name)
                new.write(path, advance)
                data["files"][new.name] = _level_file_entry(path)
            for new_file in attachments:
                path = self.bundle.path_of(new_file.name)
                new_file.write(path)
                data["files"][new_file.name] = (
                    _level_file_entry(path) if new_file.tables else _file_entry(path)
                )
            if state_text is not None:
                _core.write_file(str(self.bundle.path_of(data["state"])), state_text)
            if (self.bundle.directory / MANIFEST).read_bytes() != self._text:
                raise BusyError(f"{self.bundle.directory}: its manifest has changed meanwhile: try again")
            _core.commit_manifest(str(self.bundle.directory), json.dumps(data, indent=2) + "\n")
        except BaseException:
            with suppress(Exception):  # the first failure is the one to report; the next command clears again
                self.clear()
            raise
        try:
            self.clear()
        except OSError as error:
            self.notes.append(f"a file of the old revision stays until the next command: {error}")
        return Outcome(
            manifest.revision,
            self.revision,
            sum(data["files"][new.name]["bytes"] for new in new_files),
            sum(
                manifest.files[name].bytes for name in superfluous if manifest.files[name].covers == "tables"
            ),
            tuple(self.notes),
        )

    def _next(
        self, state: BankState, new_files: Sequence[NewFile]
    ) -> tuple[dict[str, Any], set[str], str | None]:
        """The next manifest, the new files' names, and the state file's text where there is a new one."""
        data = json.loads(self._text)
        data["revision"] = self.revision
        made = {new.name for new in new_files}
        text = None
        if state != self.bundle.state:
            text = state.to_text(self.revision)
            del data["files"][data["state"]]
            data["state"] = str(self._folder / f"state-{self.revision}.json")
            encoded = text.encode()
            sha256 = hashlib.sha256(encoded).hexdigest()
            data["files"][data["state"]] = {"bytes": len(encoded), "sha256": sha256, "covers": "file"}
            made.add(data["state"])
        if new_files:
            levels = {entry["level"]: entry for entry in data["memory"]["levels"]}
            before = {name for entry in levels.values() for name in entry["files"]}
            levels |= {new.entry["level"]: new.entry for new in new_files}
            data["memory"]["levels"] = [levels[level] for level in sorted(levels)]
            for name in before - {name for entry in levels.values() for name in entry["files"]}:
                del data["files"][name]
            data["files"] |= dict.fromkeys(made - data["files"].keys())
        return data, made, text

    def _check_space(self, needed: int) -> None:
        free = shutil.disk_usage(self.bundle.path_of(str(self._folder))).free
        if needed > free:
            raise StorageError(
                f"{self.bundle.directory}: {needed:,} bytes are needed beside the old files, {free:,} are free"
            )

    def _note_other_links(self, superfluous: set[str]) -> None:
        for name in sorted(superfluous):
            path = self.bundle.path_of(name)
            if path.is_symlink():
                self.notes.append(f"{path} was a link: {path.resolve()} keeps its bytes")
            elif path.stat().st_nlink > 1:
                self.notes.append(f"{path} had other names (hard links): they keep its bytes")

    def clear(self) -> None:
        """Removes what a change has left: this one, or an earlier one that was cut short."""
        # Whether that was committed is the manifest's to say: what it names now is kept.
        self._journal.clear(json.loads((self.bundle.directory / MANIFEST).read_bytes())["files"])


def _level_file_entry(path: Path) -> dict[str, Any]:
    return {"bytes": path.stat().st_size, "sha256": LevelReader(path).tables_sha256(), "covers": "tables"}


def _file_entry(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"bytes": path.stat().st_size, "sha256": digest, "covers": "file"}


@contextmanager
def editing(directory: Path) -> Iterator[BundleEdit]:
    """The bundle, locked against other commands that change it.

    The lock is the directory's own (flock): it ends with the process and leaves no file behind.

    Raises:
        BusyError: another command holds the lock.
        EdgeRuntimeError: what `Bundle.open` raises.
    """
    Bundle.open(directory)  # says what is wrong with a path that is no bundle
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BusyError(
                f"{directory}: another command is changing it: try again when that has ended"
            ) from None
        text = (directory / MANIFEST).read_bytes()
        edit = BundleEdit(Bundle.open(directory), text)
        edit.clear()
        yield edit
    finally:
        os.close(descriptor)
