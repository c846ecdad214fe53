"""Opens a bundle: manifest.json and the files that it names (docs/bundle-format.md)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_runtime import _core
from edge_runtime.bank import LevelReader
from edge_runtime.errors import (
    BadFormatError,
    EdgeRuntimeError,
    NotFoundError,
    TruncatedError,
    UnsupportedError,
)

MANIFEST = "manifest.json"
MAX_MANIFEST_BYTES = 16 << 20
CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class Anchor:
    """The anchor's dimensions and options, as in the manifest."""

    architecture: str
    parameters: int
    layers: int
    d_model: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn_dim: int
    vocab_size: int
    context_length: int
    rope_theta: float
    norm: str
    norm_eps: float
    activation: str
    qk_norm: bool
    tied_embeddings: bool


@dataclass(frozen=True)
class Level:
    """One level of the bank: r = `rows`; `block_bytes` is what a block costs of the budget."""

    level: int
    rows: int
    dtype: str
    nodes: int
    block_bytes: int
    files: tuple[str, ...]


@dataclass(frozen=True)
class Memory:
    kind: str
    fanout: int
    layers: tuple[int, ...]
    levels: tuple[Level, ...]

    def level(self, number: int) -> Level | None:
        return next((level for level in self.levels if level.level == number), None)


@dataclass(frozen=True)
class EmbedderSpec:
    name: str
    engine: str
    path: str
    tokenizer: str
    max_tokens: int
    pooling: str
    normalize: bool


@dataclass(frozen=True)
class RouterSpec:
    tree: str
    depth: int
    dim: int
    embedders: tuple[EmbedderSpec, ...]
    default: str

    def embedder(self, name: str | None = None) -> EmbedderSpec:
        """The embedder of that name, or the default one. NotFoundError names those that are there."""
        wanted = name or self.default
        for embedder in self.embedders:
            if embedder.name == wanted:
                return embedder
        names = ", ".join(embedder.name for embedder in self.embedders)
        raise NotFoundError(f"the bundle has no embedder {wanted!r}; it has {names}")


@dataclass(frozen=True)
class ProgramSpec:
    engine: str
    flavour: str
    path: str
    method: str
    max_prefill: int
    dtype: str
    bank_dtypes: tuple[str, ...]


@dataclass(frozen=True)
class FileEntry:
    bytes: int
    sha256: str
    covers: str


@dataclass(frozen=True)
class Tokens:
    bos: int | None
    eos: tuple[int, ...]
    add_bos: bool


@dataclass(frozen=True)
class Generation:
    max_tokens: int
    temperature: float
    stop: tuple[str, ...]


@dataclass(frozen=True)
class Manifest:
    schema: int
    revision: int
    name: str
    anchor: Anchor
    tokens: Tokens
    chat_template: str | None
    generation: Generation
    tokenizer_path: str
    tokenizer_vocab_size: int
    memory: Memory | None
    router: RouterSpec | None
    programs: tuple[ProgramSpec, ...]
    state_path: str
    files: dict[str, FileEntry]
    provenance: dict[str, Any]


@dataclass(frozen=True)
class Finding:
    """One thing that verification found wrong; `message` names the file and what to do."""

    path: str
    message: str


def _known(kind: type, data: dict[str, Any]) -> dict[str, Any]:
    """The members of `data` that the dataclass has, lists as tuples: unknown keys are ignored."""
    names = kind.__dataclass_fields__  # type: ignore[attr-defined]
    return {
        key: tuple(value) if isinstance(value, list) else value for key, value in data.items() if key in names
    }


def parse_manifest(text: str) -> Manifest:
    """Validates and parses. BadFormatError names the key; UnsupportedError for a newer schema."""
    _core.validate_manifest(text)
    data = json.loads(text)
    memory = data["memory"]
    if memory is not None:
        levels = tuple(Level(**_known(Level, level)) for level in memory["levels"])
        memory = Memory(memory["kind"], memory["fanout"], tuple(memory["layers"]), levels)
    router = data["router"]
    if router is not None:
        embedders = tuple(EmbedderSpec(**_known(EmbedderSpec, embedder)) for embedder in router["embedders"])
        router = RouterSpec(**{**_known(RouterSpec, router), "embedders": embedders})
    return Manifest(
        schema=data["schema"],
        revision=data["revision"],
        name=data["name"],
        anchor=Anchor(**_known(Anchor, data["anchor"])),
        tokens=Tokens(**_known(Tokens, data["tokens"])),
        chat_template=data["chat_template"],
        generation=Generation(**_known(Generation, data["generation"])),
        tokenizer_path=data["tokenizer"]["path"],
        tokenizer_vocab_size=data["tokenizer"]["vocab_size"],
        memory=memory,
        router=router,
        programs=tuple(ProgramSpec(**_known(ProgramSpec, program)) for program in data["programs"]),
        state_path=data["state"],
        files={path: FileEntry(**_known(FileEntry, entry)) for path, entry in data["files"].items()},
        provenance=data["provenance"],
    )


class Bundle:
    """An opened bundle. The files stay where they are; `path_of` gives their place."""

    def __init__(self, directory: Path, manifest: Manifest) -> None:
        self.directory = directory
        self.manifest = manifest
        self.blocked, self.removed = self._read_state()

    @classmethod
    def open(cls, directory: str | Path) -> Bundle:
        """Reads the manifest and checks that every file is there with its size.

        Hashes are `verify`'s. Raises NotFoundError, TruncatedError, BadFormatError or UnsupportedError.
        """
        folder = Path(directory)
        path = folder / MANIFEST
        if not path.is_file():
            what = "no such directory" if not folder.is_dir() else f"not a bundle: it has no {MANIFEST}"
            raise NotFoundError(f"{folder}: {what}")
        if path.stat().st_size > MAX_MANIFEST_BYTES:
            raise BadFormatError(f"{path}: larger than 16 MiB")
        try:
            manifest = parse_manifest(path.read_text(encoding="utf-8"))
        except UnicodeDecodeError:
            raise BadFormatError(f"{path}: not UTF-8 text") from None
        except EdgeRuntimeError as error:
            raise type(error)(f"{folder}: {error}") from None
        for name, entry in manifest.files.items():
            file = folder / name
            if not file.is_file():
                raise NotFoundError(f"{file}: missing; the manifest names it: copy the bundle again")
            size = file.stat().st_size
            if size != entry.bytes:
                kind = TruncatedError if size < entry.bytes else BadFormatError
                raise kind(f"{file}: {size} bytes, the manifest says {entry.bytes}: copy the bundle again")
        return cls(folder, manifest)

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

    def _read_state(self) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
        path = self.path_of(self.manifest.state_path)
        try:
            state = json.loads(path.read_text(encoding="utf-8"))
            if state["format"] != "edge-runtime.state" or state["schema"] != 1:
                raise UnsupportedError(f"{path}: not a state file of schema 1: update edge-runtime")
            blocked, removed = (
                [(int(level), int(node)) for level, node in state[key]] for key in ("blocked", "removed")
            )
        except (ValueError, KeyError, TypeError) as error:
            raise BadFormatError(f"{path}: not a state file ({error!r}): copy the bundle again") from None
        return blocked, removed

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
