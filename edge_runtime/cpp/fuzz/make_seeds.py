"""Writes corpus/*/golden-*: the golden files of tests/format in the compact forms that the fuzz targets take.

python edge_runtime/cpp/fuzz/make_seeds.py
"""

from __future__ import annotations

import json
from pathlib import Path

from edge_runtime.bank import LevelReader
from edge_runtime.bank_header import ELEMENT_BITS

HERE = Path(__file__).parent
GOLDEN = HERE.parents[2] / "tests/format/golden"
DERIVE, PAD = 1, 2  # safetensors_input.h


def compact(path: Path, flags: int, hole: int = 0) -> bytes:
    """A safetensors file without its padding and without the first `hole` bytes of its data."""
    data = path.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    return bytes([flags]) + data[8:start].rstrip(b" ") + b"\0" + data[start + hole :]


def block(path: Path) -> bytes:
    """The first layer of the first block: block_fuzz.cc."""
    reader = LevelReader(path)
    spec = reader.spec
    raw = reader.block_bytes(int(reader.nodes()[0])).tobytes()
    elements = 3 * spec.rows_per_block * spec.d_model * ELEMENT_BITS[spec.dtype] // 8
    columns = 0 if spec.dtype == "i4" else spec.d_model - 1
    head = bytes([list(ELEMENT_BITS).index(spec.dtype), columns, spec.rows_per_block - 1])
    return head + raw[: spec.layer_scale_bytes] + raw[spec.scale_bytes :][:elements]


def seeds() -> dict[str, bytes]:
    made = {}
    for dtype in ELEMENT_BITS:
        path = GOLDEN / f"level1.{dtype}.safetensors"
        spec = LevelReader(path).spec
        made[f"bank_level/golden-{dtype}"] = compact(path, PAD, spec.rows * spec.stride)
        made[f"bank_level/golden-{dtype}-derived"] = compact(path, PAD | DERIVE, spec.rows * spec.stride)
        made[f"block/golden-{dtype}"] = block(path)
    made["tree/golden"] = compact(GOLDEN / "tree.safetensors", PAD)
    made["tree/golden-derived"] = compact(GOLDEN / "tree.safetensors", PAD | DERIVE)
    made["static_embedder/golden"] = compact(GOLDEN / "static.safetensors", PAD)
    made["static_embedder/golden-derived"] = compact(GOLDEN / "static.safetensors", PAD | DERIVE)
    manifest = json.loads((GOLDEN / "manifest.json").read_text())
    made["manifest/golden"] = json.dumps(manifest, separators=(",", ":")).encode()
    return made


if __name__ == "__main__":
    for name, data in seeds().items():
        (HERE / "corpus" / name).parent.mkdir(parents=True, exist_ok=True)
        (HERE / "corpus" / name).write_bytes(data)
