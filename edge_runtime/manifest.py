"""What manifest.json says (docs/bundle-format.md), typed."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from edge_runtime import _core
from edge_runtime.errors import NotFoundError


@dataclass(frozen=True)
class Anchor:
    """The anchor's dimensions and options, as in the manifest. `options`: of the architecture `decoder`."""

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
    options: dict[str, Any] | None = None


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
    """`max_tokens`, `pooling` and `normalize` are those of programs; None for the engine `static`."""

    name: str
    engine: str
    path: str
    tokenizer: str
    max_tokens: int | None = None
    pooling: str | None = None
    normalize: bool | None = None


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
    delegate: str = "xnnpack"  # of ExecuTorch's


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
    reference: str | None  # the path of what programs are compared with
    files: dict[str, FileEntry]
    provenance: dict[str, Any]


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
        reference=data.get("reference"),
        files={path: FileEntry(**_known(FileEntry, entry)) for path, entry in data["files"].items()},
        provenance=data["provenance"],
    )
