"""From a recipe to a checkpoint: prepare, train the anchor, co-train it with its memories, write.

Pouransari et al. 2025, section 3: co-training from a pretrained anchor is better than memories on a frozen
anchor and than co-training from scratch.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import Progress

from edge_pretrain import checkpoint
from edge_pretrain.cache import digest
from edge_pretrain.cluster import Embeddings
from edge_pretrain.compute import Compute
from edge_pretrain.corpus.documents import DataConfig
from edge_pretrain.corpus.questions import END
from edge_pretrain.data import Embedded, PrepareConfig, Prepared, prepare
from edge_pretrain.embed import EMBEDDER_ID, MAX_TOKENS, SHA256, MiniLM
from edge_pretrain.frozen import FrozenConfig, FrozenTrainer
from edge_pretrain.loop import SAVE_EVERY, Steps, run_phase
from edge_pretrain.memories import MemoryBank, MemoryConfig
from edge_pretrain.model import Anchor, AnchorConfig
from edge_pretrain.provenance import provenance
from edge_pretrain.ranks import Ranks, ShardedBank
from edge_pretrain.recipe import FINAL_FRACTION, AnchorPhase, CotrainPhase, Recipe
from edge_pretrain.source_data import prepare_source
from edge_pretrain.tokenizer import BOS_ID, EOS_ID
from edge_pretrain.train import PhaseConfig, Schedule, Trainer

MAX_ANSWER_TOKENS = 24


@dataclass(frozen=True)
class Run:
    """A recipe with its seed, and the directory that everything is written under."""

    recipe: Recipe
    seed: int
    directory: Path
    console: Console
    label: str = ""  # keeps the phases of several recipes in one directory apart
    device: str = "cpu"

    @property
    def compute(self) -> Compute:
        return Compute(self.device, self.recipe.precision, self.recipe.sharding, self.recipe.microbatch)

    @property
    def memory_config(self) -> MemoryConfig:
        memory = self.recipe.memory
        layers = memory.layers(self.recipe.anchor.layers)
        return MemoryConfig(self.recipe.tree.fanout, memory.rows, layers, memory.kind)

    def anchor_config(self, extra_ffn: int = 0) -> AnchorConfig:
        anchor = self.recipe.anchor
        return AnchorConfig(
            anchor.layers,
            anchor.d_model,
            anchor.heads,
            anchor.head_dim,
            anchor.ffn_dim + extra_ffn,
            self.recipe.tokens.vocab_size,
            anchor.context_length,
        )

    def new_anchor(self, extra_ffn: int = 0) -> Anchor:
        """An initialised anchor; `extra_ffn` widens its FFN layers, for the dense control."""
        anchor = Anchor(self.anchor_config(extra_ffn))
        anchor.initialize(torch.Generator().manual_seed(self.seed))
        return anchor

    def new_memories(self) -> MemoryBank:
        generator = torch.Generator().manual_seed(self.seed + 1)
        bank = MemoryBank.initialized(self.memory_config, self.anchor_config(), generator)
        ranks = Ranks()
        return bank if ranks.world == 1 else ShardedBank(bank, ranks)

    def prepare(self, embedded: Embedded) -> Prepared:
        recipe = self.recipe
        config = PrepareConfig(
            DataConfig(seed=self.seed, **recipe.to_json()["corpus"]),
            recipe.tree.fanout,
            recipe.tree.depth,
            recipe.tokens.vocab_size,
            recipe.tokens.sequence_length,
        )
        root = self.directory / "prepared"
        if recipe.source is not None:
            return prepare_source(config, recipe.source, root, embedded, self.seed)
        return prepare(config, root, embedded)

    def train(
        self,
        name: str,
        anchor: Anchor,
        phase: AnchorPhase,
        prepared: Prepared,
        stream: int,
        bank: MemoryBank | None = None,
        snapshots: Collection[int] = (),
    ) -> None:
        """One phase in place, resumed where it was stopped. `stream` orders the sequences differently."""
        memory = None
        if isinstance(phase, CotrainPhase) and bank is not None:
            memory = schedule(phase.memory_learning_rate)
        config = PhaseConfig(
            phase.steps,
            phase.batch,
            phase.warmup,
            schedule(phase.learning_rate, phase.final),
            phase.weight_decay,
            memory,
            phase.memory_weight_decay if isinstance(phase, CotrainPhase) else 0.0,
        )
        trainer = Trainer(anchor, config, prepared.sequences, self.seed + stream, bank, self.compute)
        self.finish(trainer, name, str(config), anchor, snapshots)
        trainer.collect()

    def finish(
        self, trainer: Steps, name: str, config: str, anchor: Anchor, snapshots: Collection[int] = ()
    ) -> None:
        """Run a phase to its end; `config` and the anchor's dimensions name its state."""
        fingerprint = self.fingerprint(name, config, anchor.config)
        run_phase(trainer, self.phases, name, fingerprint, SAVE_EVERY, self.console, snapshots)

    def fingerprint(self, name: str, config: str, anchor: AnchorConfig) -> str:
        """Names what a phase makes."""
        return digest([self.recipe.fingerprint(self.seed), name, config, str(anchor)])

    @property
    def phases(self) -> Path:
        """Where the states of the phases are."""
        return self.directory / "phases" / self.label

    @property
    def units(self) -> int:
        """Units of the frozen phase: level-1 subtrees, and the generic memory."""
        return self.recipe.tree.fanout + 1

    @property
    def _frozen_config(self) -> FrozenConfig:
        phase = self.recipe.phases.frozen
        if phase is None:
            raise ValueError("the recipe has no [phases.frozen]: nothing is trained on a frozen anchor")
        rate = schedule(phase.memory_learning_rate)
        return FrozenConfig(phase.steps, phase.batch, phase.warmup, rate, phase.memory_weight_decay)

    def frozen_trainer(
        self, anchor: Anchor, prepared: Prepared, bank: MemoryBank, units: Sequence[int]
    ) -> FrozenTrainer:
        """The trainer of some units of the frozen phase."""
        sequences, seed = prepared.sequences, self.seed + 1000
        return FrozenTrainer(anchor, self._frozen_config, sequences, seed, bank, units, self.compute)

    def frozen_job(self, embedder: str | None, units: Sequence[int]) -> FrozenTrainer:
        """The same, after all that comes before it, which is done if it is not yet."""
        prepared = self.prepare(embedded(self.directory / "prepared", embedder, self.console))
        anchor, bank = self.new_anchor(), self.new_memories()
        self.train("anchor", anchor, self.recipe.phases.anchor, prepared, 0)
        return self.frozen_trainer(anchor, prepared, bank, units)

    def frozen_fingerprint(self, name: str) -> str:
        """Names what the frozen phase, or a job of it, makes."""
        return self.fingerprint(name, str(self._frozen_config), self.anchor_config())


def schedule(peak: float, final: float = FINAL_FRACTION) -> Schedule:
    """final: of the peak, what is left at the end."""
    return Schedule(peak, peak * final)


def trained(run: Run, prepared: Prepared, snapshots: Collection[int] = ()) -> tuple[Anchor, MemoryBank]:
    """The anchor and memories after both phases; snapshots: see `edge_pretrain.loop.run_phase`."""
    anchor, bank = run.new_anchor(), run.new_memories()
    phases = run.recipe.phases
    run.train("anchor", anchor, phases.anchor, prepared, 0)
    if phases.frozen is None:
        run.train("cotrain", anchor, phases.cotrain, prepared, 1000, bank, snapshots)
    else:
        trainer = run.frozen_trainer(anchor, prepared, bank, range(run.units))
        fingerprint = run.frozen_fingerprint("frozen")
        run_phase(trainer, run.phases, "frozen", fingerprint, SAVE_EVERY, run.console, snapshots)
    return anchor.to("cpu").eval(), bank


def control(run: Run, prepared: Prepared, name: str, extra_ffn: int) -> Anchor:
    """An anchor without memories, trained in one phase on as many tokens as both phases together."""
    phases = run.recipe.phases
    sequences = phases.anchor.steps * phases.anchor.batch + phases.cotrain.steps * phases.cotrain.batch
    phase = replace(
        phases.anchor,
        steps=sequences // phases.anchor.batch,
        learning_rate=run.recipe.controls.learning_rate,
    )
    anchor = run.new_anchor(extra_ffn)
    run.train(name, anchor, phase, prepared, 0)
    return anchor.eval()


def embedded(root: Path, source: str | None, console: Console) -> Embedded:
    """Embeds with all-MiniLM-L6-v2, which is loaded once something new is to be embedded; results stay in `root`."""

    def embed(texts: list[str]) -> Embeddings:
        minilm = MiniLM(source)
        with Progress(*Progress.get_default_columns(), console=console) as progress:
            task = progress.add_task("embedding", total=len(texts))
            return minilm.embed(texts, lambda done: progress.advance(task, done))

    return Embedded(root, embed)


def embedder_settings() -> dict[str, Any]:
    """The checkpoint's `embedder` object."""
    return {"id": EMBEDDER_ID, "sha256": SHA256, "max_tokens": MAX_TOKENS}


def pretrain(run: Run, embedder: str | None) -> Path:
    """Do all that is not done yet; returns the checkpoint's directory.

    Raises:
        TrainingInterruptedError: Ctrl-C; run again to resume.
        EmbedderError: no all-MiniLM-L6-v2 at `embedder`.
    """
    ranks = Ranks()
    if ranks.world > 1 and run.recipe.phases.frozen is not None:
        raise ValueError(
            "a frozen phase is trained by a job a subtree, not by torchrun: edge_pretrain.subtrees"
        )
    embed = embedded(run.directory / "prepared", embedder, run.console)
    prepared = ranks.first(lambda: run.prepare(embed))
    anchor, bank = trained(run, prepared)
    bank = MemoryBank(bank.config, bank.whole(bank.levels))
    out = run.directory / "checkpoint"
    if ranks.rank:
        return out
    checkpoint.save(
        out,
        anchor,
        bank,
        tree=prepared.tree_path,
        tokenizer=prepared.tokenizer_path,
        questions=prepared.questions_path,
        settings={
            "tokens": {"bos": BOS_ID, "eos": [EOS_ID], "add_bos": True},
            "chat_template": None,
            "generation": {"max_tokens": MAX_ANSWER_TOKENS, "temperature": 0.0, "stop": [END]},
            "embedder": embedder_settings(),
            "provenance": provenance(run.seed, run.recipe.to_json())
            | {"fingerprint": run.recipe.fingerprint(run.seed), "threads": torch.get_num_threads()},
        },
    )
    return out
