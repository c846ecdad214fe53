"""One unit of an experiment: a variant under one seed, trained and scored once and kept in a file."""

import json
from dataclasses import asdict, dataclass
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any

from rich.console import Console

from edge_pretrain.cache import digest
from edge_pretrain.corpus.questions import Question
from edge_pretrain.data import Embedded, Prepared
from edge_pretrain.experiments.definitions import Variant
from edge_pretrain.loop import load_state
from edge_pretrain.memories import MemoryBank
from edge_pretrain.model import Anchor
from edge_pretrain.pipeline import Run, control, embedded, trained
from edge_pretrain.recipe import load_recipe
from edge_pretrain.scores import Examination, Scores, test_questions


@dataclass(frozen=True)
class Laboratory:
    """Where runs are kept, and how they are made. `out`/seed<n> holds what all experiments share."""

    out: Path
    recipe: str
    changes: tuple[str, ...]
    embedder: str | None
    console: Console

    def run(self, seed: int, variant: Variant) -> Run:
        recipe = load_recipe(self.recipe, [*self.changes, *variant.changes])
        # Snapshots are kept only while a phase passes them, so a phase with snapshots is a run of its own.
        label = digest([recipe.fingerprint(seed), *variant.snapshots])
        return Run(recipe, seed, self.out / f"seed{seed}", self.console, label)


class Unit:
    """A variant under a seed. `path` is the file that its scores are kept in."""

    def __init__(self, laboratory: Laboratory, experiment: str, variant: Variant, seed: int) -> None:
        self.laboratory, self.variant, self.seed = laboratory, variant, seed
        self.run = laboratory.run(seed, variant)
        key = digest([self.run.label, variant.model, *variant.modes])
        self.path = (
            laboratory.out / experiment / "units" / f"seed{seed}-{variant.name.replace('/', '_')}-{key}.json"
        )

    def result(self) -> dict[str, Any] | None:
        """What was found, None if the unit is not finished."""
        return json.loads(self.path.read_text()) if self.path.exists() else None

    def finish(self) -> None:
        """Train and score what is not there yet. Raises TrainingInterruptedError."""
        if self.path.exists():
            return
        found = {"variant": self.variant.name, "seed": self.seed, "recipe": self.run.recipe.to_json()}
        found |= self._sizes() | {"series": self._series()}
        found["questions"] = [asdict(question) for question in self._examination.questions]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.path.with_suffix(".tmp")
        temporary.write_text(json.dumps(found))
        temporary.replace(self.path)

    @cached_property
    def _data(self) -> tuple[Prepared, Embedded]:
        embed = embedded(self.run.directory / "prepared", self.laboratory.embedder, self.run.console)
        return self.run.prepare(embed), embed

    @cached_property
    def _examination(self) -> Examination:
        prepared, embed = self._data
        questions = test_questions(prepared) or prepared.questions
        return Examination(prepared, embed, questions)

    def _sizes(self) -> dict[str, int]:
        sizes = {"anchor_parameters": self.run.anchor_config(self._extra_ffn()).parameters}
        if self.variant.model == "memory":
            shapes = self.run.memory_config.shapes(self.run.anchor_config())
            sizes["fetched_parameters"] = prod(shapes[0])
            sizes["bank_parameters"] = sum(prod(shape) for level, shape in shapes.items() if level)
        return sizes

    def _extra_ffn(self) -> int:
        return self.run.memory_config.fetched_rows if self.variant.model == "dense_control" else 0

    def _series(self) -> dict[str, dict[str, Any]]:
        """Scores by series: the mode, with "@step" for a snapshot."""
        prepared, _ = self._data
        if self.variant.model != "memory":
            anchor = control(self.run, prepared, self.variant.model, self._extra_ffn())
            return {"baseline": asdict(self._examination(anchor, None, "baseline"))}
        anchor, bank = trained(self.run, prepared, self.variant.snapshots)
        found: dict[str, dict[str, Any]] = {}
        for step in self.variant.snapshots:
            found |= self._scores(*self._snapshot(step), suffix=f"@{step}")
        return found | self._scores(anchor, bank, suffix="")

    def _scores(self, anchor: Anchor, bank: MemoryBank, suffix: str) -> dict[str, dict[str, Any]]:
        return {mode + suffix: asdict(self._examination(anchor, bank, mode)) for mode in self.variant.modes}

    def _snapshot(self, step: int) -> tuple[Anchor, MemoryBank]:
        path = self.run.phases / f"cotrain-{step}.pt"
        state = load_state(path)
        if state is None:
            raise ValueError(f"{path}: the snapshot is missing; delete {self.run.phases} to train it again")
        anchor = self.run.new_anchor()
        anchor.load_state_dict(state["anchor"])
        return anchor.eval(), MemoryBank(self.run.memory_config, state["memories"])


def questions_of(result: dict[str, Any]) -> list[Question]:
    return [Question(**question) for question in result["questions"]]


def scores_of(result: dict[str, Any], series: str) -> Scores:
    return Scores(**result["series"][series])
