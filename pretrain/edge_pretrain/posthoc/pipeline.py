"""From a recipe and a Hugging Face folder to memories: texts, tree, the frozen phase, held-out perplexity."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from tokenizers import Tokenizer

from edge_pretrain import checkpoint
from edge_pretrain.cache import digest
from edge_pretrain.cluster import ClusterTree
from edge_pretrain.compute import CPU, Compute
from edge_pretrain.corpus.documents import DataConfig, build_corpus
from edge_pretrain.data import Embedded, sequences_of, tree_of
from edge_pretrain.frozen import FrozenConfig, FrozenTrainer
from edge_pretrain.hf_folder import AnchorFolder
from edge_pretrain.loop import SAVE_EVERY, run_phase
from edge_pretrain.memories import MemoryBank, MemoryConfig
from edge_pretrain.pack import write_sequences
from edge_pretrain.pipeline import embedded, embedder_settings, schedule
from edge_pretrain.posthoc.anchor import HuggingFaceAnchor
from edge_pretrain.posthoc.perplexity import MODES, HeldOut, Perplexity, perplexity
from edge_pretrain.posthoc.recipe import PosthocRecipe, posthoc_fingerprint
from edge_pretrain.provenance import provenance
from edge_pretrain.sequences import Sequences
from edge_pretrain.sources import SourceError, Windows, documents, state_of, window_shards
from edge_runtime.errors import BadFormatError
from edge_runtime.text import read_tokenizer

REPORT = "perplexity.json"


@dataclass(frozen=True)
class Texts:
    """What is trained on, and what is held out."""

    tree: ClusterTree
    tree_path: Path
    sequences: Sequences
    held_out: HeldOut


@dataclass(frozen=True)
class PosthocRun:
    """A recipe with its seed and anchor, and the directory that everything is written under."""

    recipe: PosthocRecipe
    seed: int
    directory: Path
    console: Console
    folder: AnchorFolder
    compute: Compute = CPU

    @cached_property
    def anchor(self) -> HuggingFaceAnchor:
        """Raises BadFormatError."""
        anchor, length = HuggingFaceAnchor.load(self.folder), self.recipe.texts.sequence_length
        if length > anchor.config.context_length:
            raise BadFormatError(
                f"{self.folder.path}: a context of {anchor.config.context_length} tokens; "
                f"texts.sequence_length is {length}"
            )
        return anchor.to(self.compute.device)

    @cached_property
    def fingerprint(self) -> str:
        """Names what this run makes."""
        return posthoc_fingerprint(self.recipe, self.seed, self.folder)

    @property
    def phases(self) -> Path:
        return self.directory / "phases"

    @property
    def units(self) -> int:
        """Level-1 subtrees, and the generic memory."""
        return self.recipe.tree.fanout + 1

    def frozen_fingerprint(self, name: str) -> str:
        return digest([self.fingerprint, name])

    def frozen_job(self, embedder: str | None, units: Sequence[int]) -> FrozenTrainer:
        """The trainer of some units. Raises BadFormatError, SourceError, EmbedderError."""
        phase = self.recipe.frozen
        config = FrozenConfig(
            phase.steps,
            phase.batch,
            phase.warmup,
            schedule(phase.memory_learning_rate),
            phase.memory_weight_decay,
        )
        sequences = self.texts(embedder).sequences
        return FrozenTrainer(self.anchor, config, sequences, self.seed, self._bank(), units, self.compute)

    def _bank(self) -> MemoryBank:
        memory, dimensions = self.recipe.memory, self.anchor.config
        layers = memory.layers(dimensions.layers)
        config = MemoryConfig(self.recipe.tree.fanout, memory.rows, layers, memory.kind)
        return MemoryBank.initialized(config, dimensions, torch.Generator().manual_seed(self.seed + 1))

    def texts(self, embedder: str | None) -> Texts:
        """Do every step of preparing that is not done yet."""
        recipe, root, seed = self.recipe, self.directory / "prepared", self.seed
        tokenizer, markers = self._tokenizer(), self.folder.markers
        embed: Embedded = embedded(root, embedder, self.console)
        texts, held = split(self._texts(tokenizer, root), recipe.texts.held_out, seed)
        embeddings = embed(texts)
        tree, path = tree_of(root, digest(texts), embeddings, recipe.tree.fanout, recipe.tree.depth, seed)
        length, leaves = recipe.texts.sequence_length, tree.lookup(embeddings)
        key = [path.parent.name, digest(tokenizer.to_str()), asdict(markers), length]

        def ids(of: list[str]) -> list[list[int]]:
            return [encoded.ids for encoded in tokenizer.encode_batch(of, add_special_tokens=False)]

        def write(out: Path) -> None:
            write_sequences(out, ids(texts), leaves, length, seed, markers)

        sequences = sequences_of(root, key, length, write)
        whole = [[*markers.opening, *found, *markers.closing][:length] for found in ids(held)]
        return Texts(tree, path, sequences, HeldOut(whole, tree.lookup(embed(held))))

    def _tokenizer(self) -> Tokenizer:
        path = self.folder.path / "tokenizer.json"
        tokenizer, room = read_tokenizer(path), self.anchor.config.vocab_size
        if tokenizer.get_vocab_size() > room:
            raise BadFormatError(
                f"{path}: {tokenizer.get_vocab_size()} tokens do not fit the anchor's {room}"
            )
        tokenizer.no_truncation()
        tokenizer.no_padding()
        return tokenizer

    def _texts(self, tokenizer: Tokenizer, root: Path) -> list[str]:
        recipe, source = self.recipe, self.recipe.source
        if source is None:
            config = DataConfig(seed=self.seed, **recipe.to_json()["corpus"])
            return [document.text for document in build_corpus(config).documents]
        key = [asdict(source), state_of(source.path), digest(tokenizer.to_str())]
        found = documents(source.path, source.field, source.limit or None)
        shards = window_shards(found, tokenizer, recipe.texts.sequence_length - 2, root, key)
        texts: list[str] = tokenizer.decode_batch(list(Windows(shards)))
        if len(texts) < 2:
            raise SourceError(
                f"{source.path}: holds {len(texts)} texts; one to train on and one to hold out are least"
            )
        return texts


def split(texts: list[str], share: float, seed: int) -> tuple[list[str], list[str]]:
    """What is trained on, and what is held out: a share of the different texts, at least one of each."""
    different = sorted(set(texts))
    count = min(max(1, round(share * len(different))), len(different) - 1)
    order: NDArray[np.int64] = np.random.default_rng([seed, 109]).permutation(len(different))
    held = {different[i] for i in order[:count]}
    return [text for text in texts if text not in held], sorted(held)


def pretrain_posthoc(run: PosthocRun, embedder: str | None) -> Path:
    """Do all that is not done yet; returns the checkpoint's directory.

    Raises:
        TrainingInterruptedError: Ctrl-C; run again to resume.
        BadFormatError, SourceError, EmbedderError: one line on what cannot be used.
    """
    trainer = run.frozen_job(embedder, range(run.units))
    run_phase(trainer, run.phases, "frozen", run.frozen_fingerprint("frozen"), SAVE_EVERY, run.console)
    texts, bank = run.texts(embedder), trainer.bank
    found = {
        mode: perplexity(run.anchor, bank, texts.tree, texts.held_out, mode, run.compute) for mode in MODES
    }
    _show(found, run.console)
    out = run.directory / "checkpoint"
    tokens: dict[str, Any] = run.folder.settings
    checkpoint.save_posthoc(
        out,
        run.folder.to_checkpoint(),
        bank,
        tree=texts.tree_path,
        tokenizer=run.folder.path / "tokenizer.json",
        settings=tokens
        | {
            "embedder": embedder_settings(),
            "provenance": provenance(run.seed, run.recipe.to_json())
            | {"fingerprint": run.fingerprint, "threads": torch.get_num_threads()},
        },
    )
    report = {mode: value.to_json() for mode, value in found.items()}
    (out / REPORT).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return out


def _show(found: dict[Any, Perplexity], console: Console) -> None:
    first = next(iter(found.values()))
    table = Table(
        "", "nats a token", "perplexity", title=f"{first.texts} held-out texts, {first.tokens} tokens"
    )
    for mode, value in found.items():
        table.add_row(mode, f"{value.loss:.4f}", f"{value.to_json()['perplexity']:.2f}")
    console.print(table)
