"""Checkpoints with random weights and memories. Small ones, one a family, are what the export matrix measures.

python -m edge_export.samples 160M -o FOLDER        of the paper's dimensions: what docs/export.md times
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM

from edge_pretrain import checkpoint
from edge_pretrain.embed import EMBEDDER_ID
from edge_pretrain.memories import MemoryBank, MemoryConfig
from edge_pretrain.model import PAPER_ANCHORS, Anchor, AnchorConfig
from edge_pretrain.router.config import MADE_FROM
from edge_runtime import _core

OWN = "openlm"
WIDTH, VOCABULARY, CONTEXT = 64, 320, 128
MEMORY = MemoryConfig(2, (8, 16), (0, 1))
DIMENSIONS = AnchorConfig(2, WIDTH, 4, 16, 128, VOCABULARY, CONTEXT)
# The rows that Pouransari et al. 2025 fetch for each anchor; of a tree this narrow the bank takes 0.3 to 2 GB.
PAPER_ROWS = {"160M": (256, 64, 16), "410M": (512, 128, 32), "1.4B": (768, 256, 16)}
PAPER_FANOUT = 2
SIZES: dict[str, Any] = {
    "hidden_size": WIDTH,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": CONTEXT,
    "pad_token_id": 0,
}
SLIDING = {"sliding_window": 16, "layer_types": ["sliding_attention", "full_attention"]}
OPTIONS: dict[str, dict[str, Any]] = {
    "qwen2": {"use_sliding_window": True} | SLIDING,
    "gemma3_text": {"head_dim": 16, "query_pre_attn_scalar": 16} | SLIDING,
}


def write_sample(
    family: str, folder: Path, memory: MemoryConfig = MEMORY, dimensions: AnchorConfig = DIMENSIONS
) -> tuple[Path, Path | None]:
    """Writes the anchor and its memories below `folder`; returns the arguments of `edge-runtime export`.

    dimensions: of an anchor of ours; those of other families have SIZES.
    """
    memories, generator = folder / "memories", torch.Generator().manual_seed(1)
    memories.mkdir(parents=True)
    random = np.random.default_rng(0)
    counts = [memory.fanout**level for level in range(1, memory.depth + 1)]
    centroids = [random.standard_normal((count, 384)).astype(np.float32) for count in counts]
    documents = [np.full(count, 5, np.int32) for count in counts]
    _core.write_tree(str(memories / "tree.safetensors"), memory.fanout, centroids, documents)
    bank = MemoryBank.initialized(memory, dimensions, generator)
    for block in bank.levels.values():
        block[:] = 0.2 * torch.randn(block.shape, generator=generator)
    _write_tokenizer(folder / "tokenizer.json")
    if family == OWN:
        anchor = Anchor(dimensions)
        anchor.initialize(generator)
        (folder / "questions.jsonl").write_text("", encoding="utf-8")
        checkpoint.save(
            memories,
            anchor,
            bank,
            tree=_kept(memories / "tree.safetensors"),
            tokenizer=folder / "tokenizer.json",
            questions=folder / "questions.jsonl",
            settings={
                "tokens": {"bos": None, "eos": [], "add_bos": False},
                "chat_template": None,
                "generation": {"max_tokens": 8, "temperature": 0.0, "stop": []},
                "embedder": {"id": EMBEDDER_ID},
                "provenance": {},
            },
        )
        _write_router(memories, memories)
        return memories, None
    torch.manual_seed(0)
    config = AutoConfig.for_model(family, **(SIZES | OPTIONS.get(family, {})))
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            # transformers starts at 0.02, where every token is as likely as the next.
            if not name.endswith("norm.weight"):
                parameter.copy_(
                    parameter.shape[-1] ** -0.5 * torch.randn(parameter.shape, generator=generator)
                )
    model.save_pretrained(folder)
    said = {"embedder": {"id": EMBEDDER_ID}, "memory": memory.to_checkpoint()}
    (memories / "config.json").write_text(json.dumps(said), encoding="utf-8")
    save_file(
        {f"level{level}": block for level, block in bank.levels.items()}, memories / "memories.safetensors"
    )
    _write_router(folder, memories)
    return folder, memories


def _kept(tree: Path) -> Path:
    """A checkpoint is written from a tree elsewhere."""
    return tree.rename(tree.parent.parent / tree.name)


def _write_tokenizer(path: Path) -> None:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.save(str(path))


def _write_router(anchor: Path, memories: Path) -> None:
    """A static router, so that no sentence encoder is lowered with each anchor."""
    (memories / "router").mkdir()
    tables, random = memories / "router/static.safetensors", np.random.default_rng(1)
    _core.write_static_embedder(
        str(tables),
        1,
        random.integers(-127, 128, (256, 16)).astype(np.int8),
        np.full(256, 0.01, np.float32),
        np.zeros((0, 16), np.int8),
        np.zeros(0, np.float32),
        random.standard_normal((16, 384)).astype(np.float32),
        random.standard_normal(384).astype(np.float32),
    )
    files = {name: (anchor if name == "tokenizer.json" else memories) / name for name in MADE_FROM}
    files[tables.name] = tables
    report = {
        "sha256": {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()},
        "validation": {"questions": 0, "agreement": [0.0, 0.0], "answers": {"static": 0.0, "minilm": 0.0}},
        "default": True,
        "rule": "none: the router is random",
    }
    (memories / "router/report.json").write_text(json.dumps(report), encoding="utf-8")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="an anchor of the paper's dimensions with random weights")
    parser.add_argument("anchor", choices=tuple(PAPER_ROWS))
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="FOLDER", help="must not exist")
    arguments = parser.parse_args(argv)
    if arguments.out.exists():
        print(f"{arguments.out}: it exists: name another folder", file=sys.stderr)
        return 1
    dimensions = PAPER_ANCHORS[arguments.anchor]
    memory = MemoryConfig(PAPER_FANOUT, PAPER_ROWS[arguments.anchor], tuple(range(dimensions.layers)))
    checkpoint_folder, _ = write_sample(OWN, arguments.out, memory, dimensions)
    print(f"wrote {checkpoint_folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
