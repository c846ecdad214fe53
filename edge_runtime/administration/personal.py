"""A personal level on its way between copies of one anchor: a file whose every part is encrypted (docs/teach.md).

    u64 little endian: N | N bytes of JSON, the header | parts: a nonce of 12 bytes, an AES-256-GCM text with its tag

The header says what the blocks belong to and how long the parts are; it is authenticated with each part, and so is the
part's number: parts cannot be exchanged. The first part holds the tree's children and the record of the
documents, each further one a block.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edge_runtime.administration.edit import Outcome
from edge_runtime.administration.level_files import LevelFiles
from edge_runtime.administration.provenance import Taught, Teaching
from edge_runtime.administration.teaching import Lesson, put
from edge_runtime.bundle import Bundle
from edge_runtime.errors import (
    BadFormatError,
    InvalidArgumentError,
    NotFoundError,
    TruncatedError,
    UnsupportedError,
)
from edge_runtime.trees import TreeArrays

FORMAT, VERSION = "edge-runtime.personal", 1
NONCE, TAG, KEY = 12, 16, 32
MOST_HEADER = 1 << 24


def read_key(path: Path) -> bytes:
    """The key in a file of 64 hexadecimal digits. NotFoundError or InvalidArgumentError."""
    if not path.is_file():
        raise NotFoundError(f"{path}: no such key file; `openssl rand -hex 32` makes a key")
    text = path.read_text(encoding="latin-1").strip()
    if not re.fullmatch(r"[0-9a-fA-F]{64}", text):
        raise InvalidArgumentError(
            f"{path}: not a key of 64 hexadecimal digits; `openssl rand -hex 32` makes one"
        )
    return bytes.fromhex(text)


def identity(bundle: Bundle, level: int) -> str:
    """What a personal level at `level` depends on: the anchor, the tokenizer, the embedder, and the tree above it."""
    manifest = bundle.manifest
    assert manifest.router is not None
    assert manifest.memory is not None
    digest = hashlib.sha256()
    # Two exports of one checkpoint have other programs and the same anchor.
    origin: Any = manifest.provenance.get("checkpoint") or [
        manifest.files[one.path].sha256 for one in manifest.programs
    ]
    paths = (manifest.tokenizer_path, manifest.router.embedder().path)
    described = [vars(manifest.anchor), origin, *(manifest.files[path].sha256 for path in paths)]
    described += [manifest.memory.fanout, manifest.memory.layers]
    digest.update(json.dumps(described, sort_keys=True).encode())
    for centroids in TreeArrays.read(bundle.path_of(manifest.router.tree)).centroids[: level - 1]:
        digest.update(centroids.tobytes())
    return digest.hexdigest()


@dataclass(frozen=True)
class _Cipher:
    """AES-256-GCM over the parts of one file."""

    key: bytes
    header: bytes

    def _aead(self) -> Any:
        try:
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM
        except ImportError:
            raise UnsupportedError(
                "encryption needs cryptography: pip install 'edge-runtime[teach]'"
            ) from None
        return AESGCM(self.key)

    def _bound(self, index: int) -> bytes:
        return hashlib.sha256(self.header).digest() + index.to_bytes(8, "little")

    def seal(self, index: int, part: bytes) -> bytes:
        nonce = os.urandom(NONCE)
        return nonce + bytes(self._aead().encrypt(nonce, part, self._bound(index)))

    def open(self, index: int, part: bytes) -> bytes:
        from cryptography.exceptions import InvalidTag

        try:
            return bytes(self._aead().decrypt(part[:NONCE], part[NONCE:], self._bound(index)))
        except InvalidTag:
            raise InvalidArgumentError("wrong key, or the file is damaged") from None


def export_personal(directory: Path, out: Path, key: bytes) -> int:
    """Writes the personal level of a bundle, encrypted; returns its blocks.

    Raises:
        NotFoundError: the bundle has no personal level.
        EdgeRuntimeError, OSError: a block is damaged, or the disk.
    """
    bundle = Bundle.open(directory)
    teaching = Teaching.read(bundle)
    level, memory, router = teaching.personal, bundle.manifest.memory, bundle.manifest.router
    found = memory.level(level) if memory is not None and level is not None else None
    if level is None or found is None or memory is None or router is None:
        raise NotFoundError(f"{directory}: it has no personal level: `edge-runtime teach` makes one")
    files = LevelFiles([bundle.path_of(name) for name in found.files])
    nodes = files.nodes(without={node for at, node in bundle.removed if at == level})
    if not nodes:
        raise NotFoundError(f"{directory}: its personal level is empty")
    tree = TreeArrays.read(bundle.path_of(router.tree))
    children = np.flatnonzero(tree.documents[level - 1])
    personal = {(level, node) for node in nodes}
    record = teaching.without(teaching.nodes - personal)
    first = json.dumps(
        {
            "children": [int(child) for child in children],
            "documents": tree.documents[level - 1][children].tolist(),
            "centroids": tree.centroids[level - 1][children].tobytes().hex(),
            "taught": [
                [one.name, one.sha256, [list(node) for node in one.nodes]] for one in record.documents
            ],
        }
    ).encode()
    blocks = [files.reader_of(node).read(node) for node in nodes]
    parts = [first, *(block.astype("<f4").tobytes() for block in blocks)]
    header = {
        "format": FORMAT,
        "version": VERSION,
        "identity": identity(bundle, level),
        "level": level,
        "shape": list(blocks[0].shape),
        "nodes": nodes,
        "parts": [NONCE + len(part) + TAG for part in parts],
    }
    encoded = json.dumps(header).encode()
    cipher = _Cipher(key, encoded)
    if out.exists():
        raise InvalidArgumentError(f"{out}: it is there already: name another, or move it")
    partial = out.with_name(out.name + ".partial")
    with partial.open("wb") as file:
        file.write(len(encoded).to_bytes(8, "little") + encoded)
        for index, part in enumerate(parts):
            file.write(cipher.seal(index, part))
        file.flush()
        os.fsync(file.fileno())
    partial.replace(out)
    return len(nodes)


def attach_personal(directory: Path, source: Path, key: bytes) -> Outcome:
    """Puts an exported personal level into another copy of the same anchor, which has none.

    Raises:
        InvalidArgumentError: another key or anchor, or the bundle has a personal level.
        BadFormatError, TruncatedError, NotFoundError: the file.
        EdgeRuntimeError, OSError: as `BundleEdit.commit`.
    """
    bundle = Bundle.open(directory)
    header, encoded, parts = _read(source)
    level, router = header["level"], bundle.manifest.router
    if bundle.manifest.memory is None or router is None:
        raise UnsupportedError(f"{directory}: it has no memory bank or no router")
    tree = TreeArrays.read(bundle.path_of(router.tree))
    if len(tree.centroids) < level - 1 or identity(bundle, level) != header["identity"]:
        raise InvalidArgumentError(f"{source}: it belongs to another anchor than {directory}")
    if bundle.manifest.memory.level(level) is not None:
        raise InvalidArgumentError(f"{directory}: it has a personal level already")
    cipher = _Cipher(key, encoded)
    try:
        first, *blocks = [cipher.open(index, part) for index, part in enumerate(parts)]
    except InvalidArgumentError as error:
        raise InvalidArgumentError(f"{source}: {error}") from None
    data = json.loads(first)
    tree = tree if len(tree.centroids) >= level else tree.deepened(bundle.manifest.memory.fanout)
    children = data["children"]
    centroids = np.frombuffer(bytes.fromhex(data["centroids"]), "<f4").reshape(len(children), -1)
    tree.centroids[level - 1][children] = centroids
    tree.documents[level - 1][children] = data["documents"]
    arrays = {
        node: np.frombuffer(block, "<f4").reshape(header["shape"]).astype(np.float32)
        for node, block in zip(header["nodes"], blocks, strict=True)
    }
    taught = [
        Taught(name, sha256, tuple((at, node) for at, node in nodes))
        for name, sha256, nodes in data["taught"]
    ]
    return put(directory, Lesson(level, arrays, taught, tree))


def _read(path: Path) -> tuple[dict[str, Any], bytes, list[bytes]]:
    if not path.is_file():
        raise NotFoundError(f"{path}: no such file")
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        encoded = file.read(size) if size <= MOST_HEADER else b""
        try:
            header = json.loads(encoded)
            known = (header["format"], header["version"]) == (FORMAT, VERSION)
            lengths = [int(length) for length in header["parts"]]
            fits = len(lengths) == len(header["nodes"]) + 1 and 2 <= int(header["level"]) <= 8
        except (ValueError, KeyError, TypeError, RecursionError):
            known = fits = False
            lengths = []
        if not known or not fits or any(not NONCE + TAG <= length < 1 << 32 for length in lengths):
            raise BadFormatError(f"{path}: not a personal level of version {VERSION}")
        if path.stat().st_size != 8 + size + sum(lengths):
            raise TruncatedError(f"{path}: cut short, or longer than it says: copy it again")
        return header, encoded, [file.read(length) for length in lengths]
