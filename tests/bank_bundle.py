"""A bundle with a real bank and no programs, made in milliseconds: for tests of its administration."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edge_runtime import _core
from edge_runtime.bank import LevelReader
from edge_runtime.bundle import Bundle

FANOUT, D_MODEL, LAYERS, ROWS, DEPTH = 4, 32, (1, 3), 2, 3
PAGE = 16384
Node = tuple[int, int]


def values(level: int, node: int, variant: int = 0) -> npt.NDArray[np.float32]:
    """A block, f32 [layers, 3, r, d]; no two nodes or variants are alike."""
    random = np.random.default_rng([level, node, variant])
    return random.standard_normal((len(LAYERS), 3, ROWS, D_MODEL), np.float32)


def write_level(
    path: Path,
    level: int,
    nodes: Iterable[int],
    dtype: str = "i8",
    variant: int = 0,
    d_model: int = D_MODEL,
    rows: int = ROWS,
) -> Path:
    nodes = list(nodes)
    writer = _core.LevelWriter(str(path), level, FANOUT, dtype, d_model, rows, list(LAYERS), len(nodes))
    for node in nodes:
        block = values(level, node, variant)
        writer.append(node, np.resize(block, (len(LAYERS), 3, rows, d_model)))
    writer.finish()
    return path


def make_bundle(directory: Path) -> Path:
    """Levels 0, 1 and 2 in i8 (node 2:15 without a block) below a tree of depth 3."""
    for folder in ("memory", "router"):
        (directory / folder).mkdir(parents=True)
    levels = []
    for level, nodes in ((0, range(1)), (1, range(4)), (2, range(15))):
        name = f"memory/level{level}.safetensors"
        write_level(directory / name, level, nodes)
        entry = {"level": level, "rows": ROWS, "dtype": "i8", "nodes": FANOUT**level}
        levels.append(entry | {"block_bytes": PAGE, "files": [name]})
    sizes = [FANOUT**level for level in range(1, DEPTH + 1)]
    random = np.random.default_rng(5)
    _core.write_tree(
        str(directory / "router/tree.safetensors"),
        FANOUT,
        [random.standard_normal((size, 3)).astype(np.float32) for size in sizes],
        [np.ones(size, np.int32) for size in sizes],
    )
    (directory / "memory/state-1.json").write_text(
        '{"format": "edge-runtime.state", "schema": 1, "revision": 1, "blocked": [], "removed": []}\n'
    )
    for name in (
        "tokenizer.json",
        "anchor.paged.pte",
        "router/minilm.pte",
        "router/minilm.tokenizer.json",
        "router/static.safetensors",
    ):
        (directory / name).write_text("{}")
    manifest = json.loads((Path(__file__).parent / "format/golden/manifest.json").read_text())
    manifest["memory"] |= {"fanout": FANOUT, "layers": list(LAYERS), "levels": levels}
    manifest["programs"][0]["bank_dtypes"] = ["f32", "i8"]
    manifest["router"] |= {"depth": DEPTH, "dim": 3}
    manifest["later"] = {"kept": [1]}  # of a newer writer: changes must keep it
    manifest["files"] = {
        path.relative_to(directory).as_posix(): file_entry(path)
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }
    _core.commit_manifest(str(directory), json.dumps(manifest, indent=2) + "\n")
    return directory


def file_entry(path: Path) -> dict[str, object]:
    if path.name.startswith("level"):
        return {"bytes": path.stat().st_size, "sha256": LevelReader(path).tables_sha256(), "covers": "tables"}
    data = path.read_bytes()
    return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest(), "covers": "file"}


def blocks(directory: Path) -> dict[Node, bytes]:
    """What each node's block is: the last file that has it wins, removed nodes have none."""
    bundle = Bundle.open(directory)
    assert bundle.manifest.memory is not None
    found: dict[Node, bytes] = {}
    for level in bundle.manifest.memory.levels:
        for name in level.files:
            reader = LevelReader(bundle.path_of(name))
            found |= {(level.level, int(n)): reader.block_bytes(int(n)).tobytes() for n in reader.nodes()}
    return {node: block for node, block in found.items() if node not in bundle.removed}


def check(directory: Path) -> Bundle:
    """The bundle verifies, and has no file that its manifest does not name."""
    bundle = Bundle.open(directory)
    assert [finding for _, _, finding in bundle.verify() if finding] == []
    there = {path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file()}
    assert there == bundle.manifest.files.keys() | {"manifest.json"}
    return bundle


def block_of(level: int, node: int, variant: int = 0, dtype: str = "i8") -> bytes:
    """The bytes that a level file holds of `values`."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = write_level(Path(folder) / "level", level, [node], dtype, variant)
        return LevelReader(path).block_bytes(node).tobytes()
