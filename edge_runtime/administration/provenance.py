"""Which documents touched which block: the bank's sidecar that `teach` writes and `forget` reads (docs/teach.md)."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import Any

from edge_runtime import _core
from edge_runtime.administration.edit import Attachment, BundleEdit
from edge_runtime.bank_state import Node
from edge_runtime.bundle import MANIFEST, Bundle
from edge_runtime.errors import BadFormatError

FORMAT, SCHEMA, KEY = "edge-runtime.teaching", 1, "teaching"


@dataclass(frozen=True)
class Taught:
    """A document, `sha256` of its bytes, and the blocks that learnt from it."""

    name: str
    sha256: str
    nodes: tuple[Node, ...]


@dataclass(frozen=True)
class Teaching:
    """personal: the level of the personal blocks, None without. originals: level files of what blocks were before."""

    personal: int | None = None
    documents: tuple[Taught, ...] = ()
    originals: tuple[str, ...] = field(default=())

    @classmethod
    def read(cls, bundle: Bundle) -> Teaching:
        """The bundle's; empty where it was never taught. BadFormatError names the file."""
        name = json.loads((bundle.directory / MANIFEST).read_bytes()).get(KEY)
        if name is None:
            return cls()
        path = bundle.path_of(str(name))
        try:
            data = json.loads(path.read_bytes())
            if (data["format"], data["schema"]) != (FORMAT, SCHEMA):
                raise ValueError
            documents = tuple(
                Taught(str(one["name"]), str(one["sha256"]), tuple((int(a), int(b)) for a, b in one["nodes"]))
                for one in data["documents"]
            )
            personal = data["personal"]
            return cls(
                None if personal is None else int(personal), documents, tuple(map(str, data["originals"]))
            )
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            raise BadFormatError(f"{path}: not a record of schema {SCHEMA} of what was taught") from None

    @property
    def nodes(self) -> set[Node]:
        return {node for document in self.documents for node in document.nodes}

    def of(self, node: Node) -> list[Taught]:
        return [document for document in self.documents if node in document.nodes]

    def with_documents(self, documents: list[Taught]) -> Teaching:
        """Adds documents, or nodes to documents that are known."""
        merged = {(one.name, one.sha256): one for one in self.documents}
        for one in documents:
            before = merged.get((one.name, one.sha256))
            nodes = set(one.nodes) | set(before.nodes if before else ())
            merged[one.name, one.sha256] = replace(one, nodes=tuple(sorted(nodes)))
        return replace(self, documents=tuple(merged.values()))

    def without(self, nodes: set[Node]) -> Teaching:
        """Takes blocks out, and documents that no block knows any more."""
        left = [replace(one, nodes=tuple(n for n in one.nodes if n not in nodes)) for one in self.documents]
        return replace(self, documents=tuple(one for one in left if one.nodes))

    def to_text(self) -> str:
        data: dict[str, Any] = {"format": FORMAT, "schema": SCHEMA, "personal": self.personal}
        data["documents"] = [
            {"name": one.name, "sha256": one.sha256, "nodes": [list(node) for node in one.nodes]}
            for one in self.documents
        ]
        return json.dumps(data | {"originals": list(self.originals)}, indent=1) + "\n"

    def attachment(self, edit: BundleEdit) -> Attachment:
        """The record as a file of the edit's revision."""
        folder = PurePosixPath(edit.bundle.manifest.state_path).parent
        name = str(folder / f"teaching-{edit.revision}.json")

        def refer(data: dict[str, Any]) -> list[str]:
            old = data.get(KEY)
            data[KEY] = name
            return [] if old is None else [old]

        return Attachment(name, lambda path: _core.write_file(str(path), self.to_text()), refer)
