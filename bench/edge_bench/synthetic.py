"""What a synthetic bundle is made of, and how it is written: the bank first and block by block, the manifest last.

Its anchor and bank are random, so its text is noise; its sizes, routes and times are those of a trained one.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from edge_bench.banks import (
    HEADROOM,
    PAPER,
    SPARSE_BYTES,
    Bank,
    BankConfig,
    all_nodes,
    make_bank,
    random_block,
    require_space,
    sample_nodes,
)
from edge_bench.programs import ENTRY, cached_embedder, cached_onnx, cached_program
from edge_bench.synthetic_native import ROUTER_PATH, write_random_native, write_random_router
from edge_runtime import _core
from edge_runtime.errors import InvalidArgumentError

if TYPE_CHECKING:
    from edge_pretrain.model import AnchorConfig

MAX_PREFILL = 128
# The paper's 8,192 would reserve 0.9 GB of KV cache for the 160M anchor; what is measured ends long before.
CONTEXT_LENGTH = 2048
EMBEDDING_DIM = 384
OTHER_BYTES = 400e6  # of programs, tokenizer and tree, at most


@dataclass(frozen=True)
class Synthetic:
    """A bundle's plan. bank_parameters: None for the whole tree; memory_dtype f16, i8 or i4; engine executorch, onnx or
    native, whose names anchor_dtype takes: executorch's program is lowered, with MiniLM as the router; onnx's is
    exported and native's streamed, with a router that needs no engine. sparse: a bank of holes, for what is resident
    and never for time."""

    name: str
    bank_parameters: float | None = None
    memory_dtype: str = "i8"
    anchor_dtype: str = "8da4w"
    seed: int = 0
    engine: str = "executorch"
    sparse: bool = False

    @property
    def anchor(self) -> AnchorConfig:
        # Here and not above: it imports torch, which a benchmark on a bundle that is there must not carry along.
        from edge_pretrain.model import PAPER_ANCHORS

        return replace(PAPER_ANCHORS[self.name], context_length=CONTEXT_LENGTH)

    @property
    def bank(self) -> BankConfig:
        # Hidden values of about 1, so that memory adds to the anchor's stream without drowning it.
        scale = 0.3 / 74 / PAPER[self.name].d_model ** 0.5
        return replace(PAPER[self.name], dtype=self.memory_dtype, scale=scale)

    @cached_property
    def nodes(self) -> list[list[int]]:
        """That have a block, level by level: the whole tree, or the largest part of it that is asked for."""
        whole = all_nodes(self.bank)
        if self.bank_parameters is None or self.bank_parameters >= 0.98 * self._parameters(whole):
            if self.bank_parameters is not None and self.bank_parameters > 1.02 * self._parameters(whole):
                raise InvalidArgumentError(
                    f"--bank {self.bank_parameters / 1e9:.1f}B: {self.name}'s whole tree has "
                    f"{self._parameters(whole) / 1e9:.1f}B parameters: leave --bank out, or take a larger anchor"
                )
            return whole
        for branches in range(self.bank.fanout, 0, -1):
            nodes = sample_nodes(self.bank, branches)
            if self._parameters(nodes) <= self.bank_parameters:
                return nodes
        raise InvalidArgumentError(
            f"--bank {self.bank_parameters / 1e6:.0f}M: the smallest part of this tree has "
            f"{self.least_parameters / 1e6:.0f}M"
        )

    @property
    def least_parameters(self) -> int:
        """Of the smallest part of the tree that is a bank."""
        return self._parameters(sample_nodes(self.bank, 1))

    def _parameters(self, nodes: list[list[int]]) -> int:
        rows = zip(nodes, self.bank.rows, strict=True)
        return 3 * self.bank.layers * self.bank.d_model * sum(len(level) * r for level, r in rows)

    @property
    def generic(self) -> BankConfig:
        """Level 0, which has the fetched size, written as the one level of a bank of its own."""
        return replace(self.bank, rows=(sum(self.bank.rows),), fanout=1)

    @cached_property
    def bank_bytes(self) -> int:
        strides = self.bank.strides
        return sum(len(level) * stride for level, stride in zip(self.nodes, strides, strict=True))

    def to_json(self) -> dict[str, Any]:
        return {
            "anchor": self.name,
            "bank_parameters": self._parameters(self.nodes),
            "memory_dtype": self.memory_dtype,
            "anchor_dtype": self.anchor_dtype,
            "engine": self.engine,
            "seed": self.seed,
            "sparse": self.sparse,
        }

    def write_bank(self, out: Path) -> Iterator[tuple[Path, int]]:
        """Writes the levels, unless they are there. Yields (file, bytes) after each block.

        Raises StorageError where the disk is too small.
        """
        memory = out / "memory"
        memory.mkdir(parents=True, exist_ok=True)
        (out / "manifest.json").unlink(missing_ok=True)
        (out / "synth.json").write_text(json.dumps(self.to_json()) + "\n", encoding="utf-8")
        if not (memory / "bank.json").is_file():
            stored = SPARSE_BYTES if self.sparse else self.bank_bytes * HEADROOM
            require_space(out, stored + OTHER_BYTES, "the bundle")
        yield from make_bank(self.bank, memory, self.nodes, self.seed, self.sparse)

    def write_rest(self, out: Path, report: Callable[[str], None]) -> None:
        """Writes all but the bank's levels, and the manifest last. REQUIRES that `write_bank` has ended."""
        (out / "router").mkdir(exist_ok=True)
        self._write_generic(out / "memory/level0.safetensors")
        self._write_tree(out / "router/tree.safetensors")
        tokenizer = numbered_tokenizer(self.anchor.vocab_size)
        tokenizer.save(str(out / "tokenizer.json"))
        state = {"format": "edge-runtime.state", "schema": 1, "revision": 1, "blocked": [], "removed": []}
        (out / "memory/state-1.json").write_text(json.dumps(state) + "\n", encoding="utf-8")
        if self.engine != "executorch":
            if self.engine == "native":
                path = out / self._program["path"]
                report(f"{path.name}: random weights, {self.anchor_dtype}")
                write_random_native(path, self.anchor.to_manifest(), self.anchor_dtype, self.seed)
            else:
                shutil.copytree(
                    self._onnx(report), out, ignore=shutil.ignore_patterns(ENTRY), dirs_exist_ok=True
                )
            router = out / self._embedder["path"]
            write_random_router(router, tokenizer.get_vocab_size(), EMBEDDING_DIM, self.seed)
        else:
            shutil.copyfile(self._executorch(report), out / self._program["path"])
            embedder, embedder_tokenizer = cached_embedder(report)
            shutil.copyfile(embedder, out / "router/minilm.pte")
            shutil.copyfile(embedder_tokenizer, out / "router/minilm.tokenizer.json")
        manifest = self._manifest(out, tokenizer.get_vocab_size())
        _core.commit_manifest(str(out), json.dumps(manifest, indent=2) + "\n")

    def _write_generic(self, path: Path) -> None:
        spec = self.generic.spec(1)
        writer = _core.LevelWriter(
            str(path), 0, self.bank.fanout, spec.dtype, spec.d_model, spec.rows_per_block,
            spec.anchor_layers, 1,
        )  # fmt: skip
        writer.append(0, random_block(self.bank, spec.rows_per_block, [self.seed, 0]))
        writer.finish()

    def _write_tree(self, path: Path) -> None:
        """Random centroids; a child lies near its parent. Nodes without a block count as empty clusters."""
        random, centroids, documents = np.random.default_rng([self.seed, 1]), [], []
        above = np.zeros((1, EMBEDDING_DIM))
        for depth, kept in enumerate(self.nodes, start=1):
            near = np.repeat(above, self.bank.fanout, axis=0)
            above = near + random.standard_normal(near.shape) / (2**depth * EMBEDDING_DIM**0.5)
            centroids.append(above.astype(np.float32))
            count = np.zeros(len(above), np.int32)
            count[kept] = 1
            documents.append(count)
        _core.write_tree(str(path), self.bank.fanout, centroids, documents)

    def program_key(self, report: Callable[[str], None]) -> str:
        """Changes with what the program is made by. It is made, where it is not there: minutes."""
        if self.engine == "native":
            return self.anchor_dtype
        return (self._onnx if self.engine == "onnx" else self._executorch)(report).name

    def _executorch(self, report: Callable[[str], None]) -> Path:
        return cached_program(self.anchor, self.anchor_dtype, MAX_PREFILL, self.seed, report)

    def _onnx(self, report: Callable[[str], None] = lambda _: None) -> Path:
        return cached_onnx(self.anchor, self.bank, self.anchor_dtype, MAX_PREFILL, self.seed, report)

    @property
    def _program(self) -> dict[str, Any]:
        if self.engine == "onnx":
            entry: dict[str, Any] = json.loads((self._onnx() / ENTRY).read_text(encoding="utf-8"))
            return entry
        from edge_export.native import PATH
        from edge_export.programs import program_entry

        native = {"engine": "native", "path": PATH} if self.engine == "native" else {}
        return program_entry(MAX_PREFILL, self.anchor_dtype) | native

    @property
    def _embedder(self) -> dict[str, Any]:
        if self.engine != "executorch":
            return {
                "name": "static",
                "engine": "static",
                "path": ROUTER_PATH,
                "tokenizer": "tokenizer.json",
            }
        from edge_export.routers import program_embedder

        return program_embedder("minilm")

    def _manifest(self, out: Path, vocab_size: int) -> dict[str, Any]:
        from edge_export.bundle import file_entry

        levels = [(0, self.generic.rows[0], 1, self.generic.strides[0])]
        rows = zip(self.bank.levels, self.bank.rows, self.bank.strides, strict=True)
        levels += [(level, r, self.bank.fanout**level, stride) for level, r, stride in rows]
        files = sorted(path for path in out.rglob("*") if path.is_file())
        return {
            "format": "edge-runtime.bundle",
            "schema": 1,
            "revision": 1,
            "name": f"synthetic {self.name}",
            "anchor": self.anchor.to_manifest(),
            "tokens": {"bos": None, "eos": [], "add_bos": False},
            "chat_template": None,
            "generation": {"max_tokens": 32, "temperature": 0.0, "stop": []},
            "tokenizer": {"path": "tokenizer.json", "vocab_size": vocab_size},
            "memory": {
                "kind": "ffn",
                "fanout": self.bank.fanout,
                "layers": list(range(self.bank.layers)),
                "levels": [
                    {
                        "level": level,
                        "rows": r,
                        "dtype": self.memory_dtype,
                        "nodes": nodes,
                        "block_bytes": stride,
                        "files": [f"memory/level{level}.safetensors"],
                    }
                    for level, r, nodes, stride in levels
                ],
            },
            "router": {
                "tree": "router/tree.safetensors",
                "depth": len(self.nodes),
                "dim": EMBEDDING_DIM,
                "embedders": [self._embedder],
                "default": self._embedder["name"],
            },
            "programs": [self._program],
            "state": "memory/state-1.json",
            "files": {path.relative_to(out).as_posix(): file_entry(path) for path in files},
            "provenance": {"synth": self.to_json(), "version": metadata.version("edge-runtime")},
        }


def numbered_tokenizer(vocab_size: int) -> Tokenizer:
    """A token a byte, and a numbered word for every other id that the anchor may sample."""
    vocabulary = {token: i for i, token in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    vocabulary |= {f"Ġw{i}": i for i in range(len(vocabulary), vocab_size)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def open_bank(plan: Synthetic, out: Path) -> Bank:
    """The levels that `write_bank` wrote."""
    return Bank(plan.bank, out / "memory", plan.nodes)
