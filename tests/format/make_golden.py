"""Writes tests/format/golden: files that the core's writers must reproduce byte for byte and every reader must read.

    python tests/format/make_golden.py

Their contents follow from integers, so that C++ (edge_runtime/cpp/tests/golden_test.cc) makes the same.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
from bank_reference import DTYPES, PAGE, Floats, LevelFile, tree_bytes
from native_reference import native_bytes
from static_reference import StaticFile

GOLDEN = Path(__file__).parent / "golden"
FANOUT, D_MODEL, ROWS = 4, 32, 2
ANCHOR_LAYERS = (1, 4)
NODES = (3, 0, 2)  # in the order of their rows; node 1 has no block
DEPTH, DIM = 2, 3


def numbered(number: int, count: int) -> Floats:
    """Multiples of 1/256 within +-4, other ones for each number."""
    i = np.arange(count, dtype=np.uint64)
    hashed = ((i + 1) * 2654435761 + np.uint64(number) * 40503) % 2**32 >> 16
    return ((hashed % 2001).astype(np.int64) - 1000).astype(np.float32) / np.float32(256)


def values(node: int) -> Floats:
    """f32 [layers, 3, r, d], multiples of 1/256 within +-4; the first row is 0, the second 2^-20 as large."""
    block = numbered(node, len(ANCHOR_LAYERS) * 3 * ROWS * D_MODEL)
    block[:D_MODEL] = 0
    block[D_MODEL : 2 * D_MODEL] /= np.float32(2**20)
    return block.reshape(len(ANCHOR_LAYERS), 3, ROWS, D_MODEL)


def level_file(dtype: str) -> LevelFile:
    return LevelFile(1, FANOUT, dtype, ANCHOR_LAYERS, {node: values(node) for node in NODES})


def tree() -> bytes:
    """Centroid n of level l: the quarters of (7 n + 3 j) mod 23, j its coordinate; n mod 5 documents."""
    counts = [FANOUT**level for level in range(1, DEPTH + 1)]
    centroids = [
        ((7 * np.arange(n)[:, None] + 3 * np.arange(DIM)) % 23).astype(np.float32) / np.float32(4)
        for n in counts
    ]
    return tree_bytes(FANOUT, centroids, [np.arange(n, dtype=np.int32) % 5 for n in counts])


STATIC_TEXTS = ((), (0,), (4, 4, 4), (1, 2, 3, 4, 0, 1, 2))


def static() -> StaticFile:
    """vocab_size 5, width 4, dim 3, order 3, 7 buckets. Row i of a table: (31 i + 17 j) mod 255 - 127, j its column;
    scale (i mod 4) / 64; map and bias: eighths of (7 i + 3 j) mod 23 - 11."""

    def rows(count: int) -> npt.NDArray[np.int8]:
        return ((31 * np.arange(count)[:, None] + 17 * np.arange(4)) % 255 - 127).astype(np.int8)

    def scales(count: int) -> Floats:
        return (np.arange(count) % 4 / 64).astype(np.float32)

    values = ((7 * np.arange(5)[:, None] + 3 * np.arange(3)) % 23 - 11).astype(np.float32) / np.float32(8)
    return StaticFile(3, rows(5), scales(5), rows(7), scales(7), values[:4], values[4])


def native_tensors(dtype: str) -> dict[str, Floats]:
    """Of an anchor of one layer that has every tensor there is, its values as those of `values`, numbered in their
    order. 5 tokens are no whole block of rows, 48 neurons no whole groups of columns, which i4 cannot have."""
    d, qkv, heads, ffn = D_MODEL, 64, 32, 64 if dtype == "i4" else 48
    shapes: dict[str, tuple[int, ...]] = {
        "attention_norm": (d,),
        "qkv": (qkv, d),
        "qkv_bias": (qkv,),
        "q_norm": (16,),
        "k_norm": (16,),
        "attention_out": (d, heads),
        "attention_out_bias": (d,),
        "attention_post_norm": (d,),
        "ffn_norm": (d,),
        "gate": (ffn, d),
        "gate_bias": (ffn,),
        "up": (ffn, d),
        "up_bias": (ffn,),
        "down": (d, ffn),
        "down_bias": (d,),
        "ffn_post_norm": (d,),
    }
    named = {"embedding": (5, d)} | {f"layers.0.{name}": shape for name, shape in shapes.items()}
    named |= {"norm": (d,), "head": (5, d)}
    return {
        name: numbered(index, int(np.prod(shape))).reshape(shape)
        for index, (name, shape) in enumerate(named.items())
    }


def manifest(files: dict[str, bytes]) -> str:
    """Of a bundle that has golden files, and others that are made up."""

    def entry(data: bytes, covers: str = "file") -> dict[str, object]:
        digest = hashlib.sha256(data if covers == "file" else data[:PAGE] + data[PAGE + len(NODES) * PAGE :])
        return {"bytes": len(data), "sha256": digest.hexdigest(), "covers": covers}

    level = {"level": 1, "rows": ROWS, "dtype": "i8", "nodes": FANOUT, "block_bytes": PAGE}
    embedder = {
        "name": "minilm",
        "engine": "executorch",
        "path": "router/minilm.pte",
        "tokenizer": "router/minilm.tokenizer.json",
        "max_tokens": 256,
        "pooling": "mean",
        "normalize": True,
    }
    static_embedder = {
        "name": "static",
        "engine": "static",
        "path": "router/static.safetensors",
        "tokenizer": "tokenizer.json",
    }
    program = {
        "engine": "executorch",
        "flavour": "paged",
        "path": "anchor.paged.pte",
        "method": "forward",
        "max_prefill": 64,
        "dtype": "f32",
        "bank_dtypes": ["i8"],
    }
    document = {
        "format": "edge-runtime.bundle",
        "schema": 1,
        "revision": 1,
        "name": "golden",
        "anchor": {
            "architecture": "openlm",
            "parameters": 100000,
            "layers": 6,
            "d_model": D_MODEL,
            "heads": 2,
            "kv_heads": 2,
            "head_dim": 16,
            "ffn_dim": 64,
            "vocab_size": 320,
            "context_length": 128,
            "rope_theta": 100000.0,
            "norm": "layernorm",
            "norm_eps": 1e-5,
            "activation": "silu",
            "qk_norm": True,
            "tied_embeddings": True,
        },
        "tokens": {"bos": None, "eos": [0], "add_bos": False},
        "chat_template": None,
        "generation": {"max_tokens": 32, "temperature": 0.0, "stop": ["."]},
        "tokenizer": {"path": "tokenizer.json", "vocab_size": 320},
        "memory": {
            "kind": "ffn",
            "fanout": FANOUT,
            "layers": list(ANCHOR_LAYERS),
            "levels": [{**level, "files": ["memory/level1.safetensors"]}],
        },
        "router": {
            "tree": "router/tree.safetensors",
            "depth": DEPTH,
            "dim": DIM,
            "embedders": [embedder, static_embedder],
            "default": "minilm",
        },
        "programs": [program],
        "state": "memory/state-1.json",
        "files": {
            "anchor.paged.pte": entry(b"program"),
            "memory/level1.safetensors": entry(files["level1.i8.safetensors"], "tables"),
            "memory/state-1.json": entry(files["state-1.json"]),
            "router/minilm.pte": entry(b"embedder"),
            "router/minilm.tokenizer.json": entry(b"{}"),
            "router/static.safetensors": entry(files["static.safetensors"]),
            "router/tree.safetensors": entry(files["tree.safetensors"]),
            "tokenizer.json": entry(b"{}"),
        },
        "provenance": {"seed": 0},
    }
    return json.dumps(document, indent=2) + "\n"


def golden_files() -> dict[str, bytes]:
    """By name. level1.<dtype>.values: what readers make of the level file, f32 [rows, layers, 3, r, d];
    static.values: the embeddings of STATIC_TEXTS, f32 [texts, dim]."""
    files = {}
    for dtype in DTYPES:
        level = level_file(dtype)
        files[f"level1.{dtype}.safetensors"] = level.to_bytes()
        decoded = np.stack([level.decoded(block) for block in level.blocks.values()])
        files[f"level1.{dtype}.values"] = decoded.astype("<f4").tobytes()
        files[f"native.{dtype}.safetensors"] = native_bytes(native_tensors(dtype), dtype)
    files["tree.safetensors"] = tree()
    files["static.safetensors"] = static().to_bytes()
    embeddings = np.stack([static().embed(ids) for ids in STATIC_TEXTS])
    files["static.values"] = embeddings.astype("<f4").tobytes()
    state = {
        "format": "edge-runtime.state",
        "schema": 1,
        "revision": 1,
        "blocked": [[1, 2]],
        "removed": [[1, 3]],
    }
    files["state-1.json"] = (json.dumps(state) + "\n").encode()
    files["manifest.json"] = manifest(files).encode()
    return files


if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    for name, data in golden_files().items():
        (GOLDEN / name).write_bytes(data)
