"""`teach`: documents in, a bundle out that knows them."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from edge_pretrain.teach.documents import Document, Section, read_folder, split
from edge_pretrain.teach.lessons import Tokens, make_lessons
from edge_pretrain.teach.placement import Placement, Routing, place_in_leaves, place_personally
from edge_pretrain.teach.training import Progress, TeachConfig, train
from edge_pretrain.teach.weights import load_anchor
from edge_runtime.administration.provenance import Taught, Teaching
from edge_runtime.administration.teaching import Lesson, put
from edge_runtime.bank_state import Node
from edge_runtime.bundle import MANIFEST, Bundle
from edge_runtime.errors import InvalidArgumentError, UnsupportedError
from edge_runtime.text import load_tokenizer

Into = Literal["personal", "leaf"]


@dataclass(frozen=True)
class Request:
    """rows: of a fresh personal block and layer. replay: documents that the bank knew before."""

    bundle: Path
    folder: Path
    out: Path
    checkpoint: Path | None
    replay: Path | None
    into: Into
    rows: int
    threads: int
    config: TeachConfig


@dataclass(frozen=True)
class Result:
    """changed: the blocks that are new or other than before. skipped: documents that were known already."""

    source: str
    documents: int
    sections: int
    skipped: tuple[str, ...]
    changed: tuple[Node, ...]


def teach(request: Request, progress: Progress) -> Result:
    """Writes `request.out`; what is not finished lies beside it, in `<out>.teaching`, and is continued.

    Raises:
        TeachingInterruptedError: Ctrl-C.
        EdgeRuntimeError, ValueError, OSError: one line.
    """
    if request.out.exists():
        raise InvalidArgumentError(f"{request.out}: it is there already: name another, or move it")
    bundle = Bundle.open(request.bundle)
    routing = Routing(bundle, request.threads)
    anchor, source = load_anchor(bundle, request.checkpoint)
    teaching = Teaching.read(bundle)
    documents = read_folder(request.folder)
    known = {one.sha256 for one in teaching.documents}
    fresh = [document for document in documents if document.sha256 not in known]
    if not fresh:
        raise InvalidArgumentError(f"{request.bundle}: it was taught all of {request.folder} already")
    sections = split(fresh)
    replay = [] if request.replay is None else _texts(read_folder(request.replay))
    placement = _placed(bundle, routing, teaching, request, sections, replay)
    tokens = Tokens(bundle, load_tokenizer(bundle))
    lessons = make_lessons(bundle, tokens, placement, request.rows, request.config.seed)

    work = request.out.with_name(request.out.name + ".teaching")
    work.mkdir(parents=True, exist_ok=True)
    assert bundle.manifest.memory is not None
    blocks = train(
        anchor,
        bundle.manifest.memory.layers,
        lessons,
        request.config,
        work / "state.pt",
        _fingerprint(bundle, request, fresh, replay),
        progress,
    )
    copy = work / "bundle"
    shutil.rmtree(copy, ignore_errors=True)
    _copy_bundle(bundle, copy)
    taught = [_taught(document, placement, set(blocks)) for document in fresh]
    arrays = {node: block.numpy() for node, block in blocks.items()}
    put(copy, Lesson(placement.level, arrays, [one for one in taught if one.nodes], placement.tree))
    copy.rename(request.out)
    shutil.rmtree(work)
    skipped = tuple(document.name for document in documents if document.sha256 in known)
    changed = tuple((placement.level, node) for node in sorted(blocks))
    return Result(source, len(fresh), len(sections), skipped, changed)


def _placed(
    bundle: Bundle,
    routing: Routing,
    teaching: Teaching,
    request: Request,
    sections: list[Section],
    replay: list[str],
) -> Placement:
    memory = bundle.manifest.memory
    assert memory is not None
    if request.into == "leaf":
        deepest = max(level.level for level in memory.levels if level.level != teaching.personal)
        return place_in_leaves(routing, deepest, sections, replay)
    fixed = [one for one in bundle.manifest.programs if one.flavour != "paged"]
    if fixed:
        raise UnsupportedError(
            f"{bundle.directory}: {fixed[0].path} reads only the levels that it was exported with: "
            f"teach with --into leaf, or export without --flavour {fixed[0].flavour}"
        )
    level = teaching.personal or routing.spec.depth + 1
    return place_personally(routing, level, sections, replay, request.config.seed)


def _texts(documents: list[Document]) -> list[str]:
    return [text for section in split(documents) for text in section.texts]


def _taught(document: Document, placement: Placement, blocks: set[int]) -> Taught:
    nodes = sorted(
        node
        for node, sections in placement.taught.items()
        if node in blocks and any(section.document == document.name for section in sections)
    )
    return Taught(document.name, document.sha256, tuple((placement.level, node) for node in nodes))


def _fingerprint(bundle: Bundle, request: Request, documents: list[Document], replay: list[str]) -> str:
    """Of all that the blocks depend on."""
    parts = {
        "manifest": hashlib.sha256((bundle.directory / MANIFEST).read_bytes()).hexdigest(),
        "documents": [document.sha256 for document in documents],
        "replay": hashlib.sha256("\0".join(replay).encode()).hexdigest(),
        "into": request.into,
        "rows": request.rows,
        "config": asdict(request.config),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def _copy_bundle(bundle: Bundle, to: Path) -> None:
    for name in [*bundle.manifest.files, MANIFEST]:
        target = to / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(bundle.path_of(name), target)
