"""Writes corpus: the golden files of tests/format in the compact forms that the fuzz targets take, and seeds made here.

python edge_runtime/cpp/fuzz/make_seeds.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

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


def native() -> dict[str, bytes]:
    """native_fuzz.cc: an anchor with few options, and one with all of them; the target adds their tensors."""
    plain: dict[str, Any] = {
        "architecture": "openlm", "layers": 2, "d_model": 32, "heads": 2, "kv_heads": 1, "head_dim": 16,
        "ffn_dim": 64, "vocab_size": 5, "context_length": 128, "rope_theta": 1e4, "norm": "layernorm",
        "norm_eps": 1e-5, "activation": "silu", "qk_norm": True, "tied_embeddings": True,
    }  # fmt: skip
    rope = {
        "theta": 1e4,
        "scaling": "llama3",
        "factor": 8.0,
        "low": 1.0,
        "high": 4.0,
        "original_context": 64,
    }
    options = {
        "layers": [{"rope": rope, "window": 8}, {"rope": None, "window": None}], "qk_norm": "head",
        "attention_scale": 0.25, "pre_norm": True, "post_norm": True, "qkv_bias": True, "output_bias": True,
        "ffn_bias": True, "embedding_scale": 2.0, "logit_softcap": 3.0,
    }  # fmt: skip
    full = plain | {"architecture": "decoder", "activation": "gelu_tanh", "tied_embeddings": False}
    metadata = {"format": "edge-runtime.native", "version": "2"}
    found = {}
    for name, anchor in (("plain", plain), ("options", full | {"options": options})):
        for dtype in ELEMENT_BITS:
            header = {"__metadata__": metadata, "anchor": anchor, "dtype": dtype}
            text = json.dumps(header, separators=(",", ":")).encode()
            found[f"{name}-{dtype}"] = bytes([PAD | DERIVE]) + text + b"\0"
    return found


def tokenizers() -> dict[str, dict[str, Any]]:
    """tokenizer_fuzz.cc: byte-level, and as SentencePiece does it."""
    added = {"id": 9, "content": "<|end|>", "special": True, "normalized": False}
    added |= {"single_word": False, "lstrip": False, "rstrip": False}
    word = {chr(0x120): 0, "t": 1, "h": 2, "e": 3, "o": 4, "n": 5, f"{chr(0x120)}t": 6, "on": 7, "1": 8}
    bytewise = {
        "added_tokens": [added],
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True},
        "decoder": {"type": "ByteLevel"},
        "model": {"type": "BPE", "vocab": word, "merges": [[chr(0x120), "t"], ["o", "n"]]},
    }
    space = chr(0x2581)
    pieces = {"<unk>": 0, "<0xC3>": 1, "<0xA9>": 2, space: 3, "x": 4, f"{space}x": 5, "a": 6, "b": 7, "c": 8}
    replaced = {"type": "Replace", "pattern": {"String": " "}, "content": space}
    back = {"type": "Replace", "pattern": {"String": space}, "content": " "}
    sentencepiece = {
        "added_tokens": [added],
        "normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": space}, replaced]},
        "pre_tokenizer": None,
        "decoder": {
            "type": "Sequence",
            "decoders": [
                back,
                {"type": "ByteFallback"},
                {"type": "Fuse"},
                {"type": "Strip", "content": " ", "start": 1, "stop": 0},
            ],
        },
        "model": {
            "type": "BPE", "vocab": pieces, "merges": [[space, "x"]], "byte_fallback": True, "unk_token": "<unk>",
            "fuse_unk": True,
        },
    }  # fmt: skip
    split = {"type": "Split", "pattern": {"Regex": "\\p{L}+|\\s+"}, "behavior": "Isolated", "invert": False}
    level = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False}
    regex = bytewise | {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, level]}}
    return {"bytes": bytewise, "sentencepiece": sentencepiece, "regex": regex}


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
    made |= {f"native/{name}": seed for name, seed in native().items()}
    made |= {f"tokenizer/{name}": json.dumps(one).encode() for name, one in tokenizers().items()}
    manifest = json.loads((GOLDEN / "manifest.json").read_text())
    made["manifest/golden"] = json.dumps(manifest, separators=(",", ":")).encode()
    return made


if __name__ == "__main__":
    for name, data in seeds().items():
        (HERE / "corpus" / name).parent.mkdir(parents=True, exist_ok=True)
        (HERE / "corpus" / name).write_bytes(data)
