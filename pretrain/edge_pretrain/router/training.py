"""Trains the static router of a run, and writes it with its verdict beside the run's checkpoint.

checkpoint/router/static.safetensors   the tables (docs/bundle-format.md)
checkpoint/router/report.json          what they were made from and with, and how they did; written last
"""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from tokenizers import Tokenizer

from edge_pretrain import checkpoint as checkpoints
from edge_pretrain.cluster import ClusterTree, Embeddings
from edge_pretrain.data import Prepared
from edge_pretrain.pipeline import Run, embedded
from edge_pretrain.provenance import provenance
from edge_pretrain.recipe import recipe_of
from edge_pretrain.router.config import FOLDER, REPORT, TABLES, DistillConfig, hashes
from edge_pretrain.router.cuts import cuts
from edge_pretrain.router.distill import distill
from edge_pretrain.router.features import features_of
from edge_pretrain.router.judge import RULE, StaticFile, Verdict, verdict
from edge_pretrain.router.student import Student
from edge_pretrain.scores import Router, validation_questions

CUTS_PER_DOCUMENT = 2
SHARD = 4096  # texts that are embedded, and kept, at a time


def embedded_in_shards(embed: Router, texts: Sequence[str]) -> Embeddings:
    """f32 [n, dim]; a run that is stopped keeps the shards that it has."""
    shards = [embed(texts[start : start + SHARD]) for start in range(0, len(texts), SHARD)]
    return np.concatenate(shards)


def train_student(
    texts: Sequence[str],
    targets: Embeddings,
    tree: ClusterTree,
    tokenizer: Tokenizer,
    config: DistillConfig,
    seed: int,
    console: Console,
) -> Student:
    """Distils with a progress bar."""
    features = features_of(tokenizer, texts, config.order, config.ngram_rows)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]:.3f}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, refresh_per_second=2) as progress:
        task = progress.add_task("distilling", total=config.steps, loss=float("nan"))
        return distill(
            features,
            targets,
            tree,
            tokenizer.get_vocab_size(),
            config,
            seed,
            lambda loss: progress.update(task, advance=1, loss=loss),
        )


class TrainedRun:
    """A finished run of `edge-runtime pretrain`: its corpus, tree, teacher and trained memories."""

    def __init__(self, directory: Path, embedder: str | None, console: Console) -> None:
        self.checkpoint_path = directory / "checkpoint"
        self.checkpoint = checkpoints.load(self.checkpoint_path)
        made = self.checkpoint.config["provenance"]
        self.seed = int(made["seed"])
        run = Run(recipe_of(made["configuration"]), self.seed, directory, console)
        self.teacher: Router = embedded(directory / "prepared", embedder, console)
        self.prepared: Prepared = run.prepare(self.teacher)
        self.static_path = self.checkpoint_path / FOLDER / TABLES
        self.console = console

    def static(self) -> StaticFile:
        return StaticFile(self.static_path, self.checkpoint.tokenizer)

    def train(self, config: DistillConfig) -> Verdict:
        """Writes the tables and the report."""
        documents = [document.text for document in self.prepared.corpus.documents]
        different = list(dict.fromkeys(documents))
        pieces = cuts(different, CUTS_PER_DOCUMENT * len(different), self.seed)
        texts = [*documents, *pieces]
        # The documents in one call, as they were embedded for the tree.
        targets = np.concatenate([self.teacher(documents), embedded_in_shards(self.teacher, pieces)])
        student = train_student(
            texts, targets, self.prepared.tree, self.checkpoint.tokenizer, config, self.seed, self.console
        )
        report = self.static_path.with_name(REPORT)
        report.unlink(missing_ok=True)
        self.static_path.parent.mkdir(exist_ok=True)
        student.write(self.static_path)
        found = verdict(
            self.prepared, self.checkpoint, validation_questions(self.prepared), self.teacher, self.static()
        )
        record: dict[str, Any] = {
            "sha256": hashes(self.checkpoint_path),
            "validation": asdict(found),
            "default": found.default,
            "rule": RULE,
            "texts": len(texts),
            "provenance": provenance(self.seed, asdict(config)) | {"threads": torch.get_num_threads()},
        }
        report.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        return found
