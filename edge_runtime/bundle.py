"""Opens a bundle: manifest.json and the files that it names (docs/bundle-format.md)."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edge_runtime.bank import LevelReader
from edge_runtime.bank_state import BankState, Node
from edge_runtime.errors import (
    BadFormatError,
    EdgeRuntimeError,
    NotFoundError,
    TruncatedError,
    UnsupportedError,
)
from edge_runtime.manifest import FileEntry, Manifest, ProgramSpec, parse_manifest

MANIFEST = "manifest.json"
MAX_MANIFEST_BYTES = 16 << 20
CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class Finding:
    """One thing that verification found wrong; `message` names the file and what to do."""

    path: str
    message: str


def _read_manifest(folder: Path) -> bytes:
    path = folder / MANIFEST
    if not path.is_file():
        what = "no such directory" if not folder.is_dir() else f"not a bundle: it has no {MANIFEST}"
        raise NotFoundError(f"{folder}: {what}")
    with path.open("rb") as file:
        text = file.read(MAX_MANIFEST_BYTES + 1)
    if len(text) > MAX_MANIFEST_BYTES:
        raise BadFormatError(f"{path}: larger than 16 MiB")
    return text


def _size_of(file: Path) -> int:
    try:
        info = file.stat()
    except (FileNotFoundError, NotADirectoryError):
        info = None
    if info is None or not stat.S_ISREG(info.st_mode):
        raise NotFoundError(f"{file}: missing; the manifest names it: copy the bundle again")
    return info.st_size


class Bundle:
    """An opened bundle. The files stay where they are; `path_of` gives their place."""

    def __init__(self, directory: Path, manifest: Manifest) -> None:
        self.directory = directory
        self.manifest = manifest
        self.state = self._read_state()

    @classmethod
    def open(cls, directory: str | Path) -> Bundle:
        """Reads the manifest and checks that every file is there with its size.

        Hashes are `verify`'s. Raises NotFoundError, TruncatedError, BadFormatError or UnsupportedError.
        """
        folder = Path(directory)
        while True:
            text = _read_manifest(folder)
            try:
                return cls._of(folder, text)
            except EdgeRuntimeError:
                # A command that changed the bundle meanwhile has unlinked what its old revision named.
                if _read_manifest(folder) == text:
                    raise

    @classmethod
    def _of(cls, folder: Path, text: bytes) -> Bundle:
        try:
            manifest = parse_manifest(text.decode())
        except UnicodeDecodeError:
            raise BadFormatError(f"{folder / MANIFEST}: not UTF-8 text") from None
        except EdgeRuntimeError as error:
            raise type(error)(f"{folder}: {error}") from None
        for name, entry in manifest.files.items():
            file = folder / name
            size = _size_of(file)
            if size != entry.bytes:
                kind = TruncatedError if size < entry.bytes else BadFormatError
                raise kind(f"{file}: {size} bytes, the manifest says {entry.bytes}: copy the bundle again")
        return cls(folder, manifest)

    def is_current(self) -> bool:
        """Whether the directory still has the revision that was opened."""
        return parse_manifest(_read_manifest(self.directory).decode()).revision == self.manifest.revision

    def path_of(self, name: str) -> Path:
        return self.directory / name

    def program(self, engine: str, flavour: str) -> ProgramSpec:
        """The program of that engine and flavour. UnsupportedError names those that are there."""
        for program in self.manifest.programs:
            if (program.engine, program.flavour) == (engine, flavour):
                return program
        there = (
            ", ".join(f"{program.engine}/{program.flavour}" for program in self.manifest.programs) or "none"
        )
        raise UnsupportedError(f"{self.directory}: it has no {engine}/{flavour} program; it has {there}")

    def bytes_of(self, program: ProgramSpec) -> int:
        """Of the program's file, or of those of its folder."""
        files, folder = self.manifest.files, f"{program.path}/"
        return sum(
            entry.bytes for name, entry in files.items() if name == program.path or name.startswith(folder)
        )

    @property
    def bank_bytes(self) -> int:
        """Bytes of all level files together."""
        memory = self.manifest.memory
        levels = memory.levels if memory else ()
        return sum(self.manifest.files[name].bytes for level in levels for name in level.files)

    @property
    def level_paths(self) -> list[list[str]]:
        """For each level with memory its files, base first: what the pager opens."""
        memory = self.manifest.memory
        return (
            [[str(self.path_of(name)) for name in level.files] for level in memory.levels] if memory else []
        )

    @property
    def blocked(self) -> list[Node]:
        """(level, node) pairs that are never read, each with its subtree; ascending."""
        return sorted(self.state.blocked)

    @property
    def removed(self) -> list[Node]:
        """(level, node) pairs that have no block any more; ascending."""
        return sorted(self.state.removed)

    def _read_state(self) -> BankState:
        path = self.path_of(self.manifest.state_path)
        try:
            return BankState.parse(path.read_text(encoding="utf-8"))
        except UnicodeDecodeError:
            raise BadFormatError(f"{path}: not a state file: copy the bundle again") from None
        except FileNotFoundError:
            raise NotFoundError(f"{path}: missing; the manifest names it: copy the bundle again") from None
        except EdgeRuntimeError as error:
            raise type(error)(f"{path}: {error}") from None

    def verify(self) -> Iterator[tuple[str, int, Finding | None]]:
        """Checks every hash of the manifest and every block's checksums.

        Yields (file, bytes checked since the last, None or what is wrong); a file that is wrong ends there.
        """
        for name, entry in self.manifest.files.items():
            try:
                check = self._verify_tables if entry.covers == "tables" else self._verify_file
                for count in check(name, entry):
                    yield name, count, None
            except (EdgeRuntimeError, OSError) as error:
                yield name, 0, Finding(name, str(error))

    def _verify_file(self, name: str, entry: FileEntry) -> Iterator[int]:
        import hashlib  # 3.5 MB of OpenSSL, which answering does not need

        digest = hashlib.sha256()
        with self.path_of(name).open("rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                digest.update(chunk)
                yield len(chunk)
        self._compare(name, entry, digest.hexdigest())

    def _verify_tables(self, name: str, entry: FileEntry) -> Iterator[int]:
        reader = LevelReader(self.path_of(name))
        self._compare(name, entry, reader.tables_sha256())
        yield entry.bytes - reader.spec.rows * reader.spec.stride
        for _ in reader.verify():
            yield reader.spec.stride

    def _compare(self, name: str, entry: FileEntry, actual: str) -> None:
        if actual != entry.sha256:
            raise BadFormatError(
                f"{self.path_of(name)}: sha256 is {actual[:16]}..., the manifest says "
                f"{entry.sha256[:16]}...: copy the file again"
            )
