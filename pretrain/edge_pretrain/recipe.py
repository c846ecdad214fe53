"""Recipes: all hyperparameters of a training run, in one TOML file. Loading one needs no torch."""

import math
import tomllib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import dacite

from edge_pretrain.cache import digest
from edge_pretrain.recipe_values import merge, numbers, said, without_defaults
from edge_pretrain.sources import sizes_of

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Kind = TypeVar("Kind", bound="DataclassInstance")
Precision = Literal["f32", "bf16"]
Sharding = Literal["ddp", "fsdp"]
FINAL_FRACTION = 0.1  # of the learning rate at the end of its cosine


class RecipeError(ValueError):
    """A recipe that cannot be used; the message names the file, what is wrong and what to do."""


@dataclass(frozen=True)
class CorpusRecipe:
    """See `edge_pretrain.corpus.documents.DataConfig`; `zipf` is the exponent of the entities' frequencies."""

    element_documents: int
    people: int
    people_documents: int
    places: int
    place_documents: int
    common_documents: int
    zipf: float
    fact_floor: int
    facts_per_document: int = 1
    tail_documents: int = 0


@dataclass(frozen=True)
class TreeRecipe:
    """k and p of Pouransari et al. 2025, section 2.1."""

    fanout: int
    depth: int


@dataclass(frozen=True)
class TokensRecipe:
    vocab_size: int
    sequence_length: int


@dataclass(frozen=True)
class AnchorRecipe:
    """The anchor's dimensions; `context_length` in tokens."""

    layers: int
    d_model: int
    heads: int
    head_dim: int
    ffn_dim: int
    context_length: int


@dataclass(frozen=True)
class MemoryRecipe:
    """rows[l - 1] is r of level l.

    kind: ffn, lora_qk, lora_vo, lora_ffn or kv. placement: the anchor's layers that carry memory: uniform is all,
    early, middle and late are the first, central and last half.
    """

    rows: tuple[int, ...]
    kind: Literal["ffn", "lora_qk", "lora_vo", "lora_ffn", "kv"] = "ffn"
    placement: Literal["uniform", "early", "middle", "late"] = "uniform"

    def layers(self, of: int) -> tuple[int, ...]:
        """The layers that carry memory in an anchor of `of` layers."""
        if self.placement == "uniform":
            return tuple(range(of))
        count = (of + 1) // 2
        first = {"early": 0, "middle": (of - count) // 2, "late": of - count}[self.placement]
        return tuple(range(first, first + count))


@dataclass(frozen=True, kw_only=True)
class AnchorPhase:
    """`batch` in sequences; the learning rate warms up linearly and falls by a cosine to `final` of its peak."""

    steps: int
    batch: int
    warmup: int
    learning_rate: float
    weight_decay: float
    final: float = FINAL_FRACTION


@dataclass(frozen=True, kw_only=True)
class CotrainPhase(AnchorPhase):
    memory_learning_rate: float
    memory_weight_decay: float


@dataclass(frozen=True)
class FrozenPhase:
    """Memories on an anchor that stays as it is; `steps` and `batch` are of each level-1 subtree."""

    steps: int
    batch: int
    warmup: int
    memory_learning_rate: float
    memory_weight_decay: float


@dataclass(frozen=True)
class Phases:
    """frozen: where given, it takes the place of `cotrain`."""

    anchor: AnchorPhase
    cotrain: CotrainPhase
    frozen: FrozenPhase | None = None


@dataclass(frozen=True)
class Controls:
    """The anchors without memories that `reproduce` compares with: trained in one phase on the tokens of both."""

    learning_rate: float


@dataclass(frozen=True)
class SourceRecipe:
    """Texts in place of the built-in corpus; path and field: see `edge_pretrain.sources`.

    tokenizer: a Hugging Face tokenizer.json with the tokens <|bos|> and <|eos|> first; empty: one is trained on the
    texts. limit: documents at most, 0 for all.
    """

    path: str
    field: str = "text"
    tokenizer: str = ""
    limit: int = 0


@dataclass(frozen=True)
class Recipe:
    """precision: of products and attention; weights, moments and sums stay f32.

    sharding: of the anchor under torchrun. microbatch: sequences that a process computes at once, 0: its whole share
    of a step's batch.
    """

    corpus: CorpusRecipe
    tree: TreeRecipe
    tokens: TokensRecipe
    anchor: AnchorRecipe
    memory: MemoryRecipe
    phases: Phases
    controls: Controls
    source: SourceRecipe | None = None
    precision: Precision = "f32"
    sharding: Sharding = "ddp"
    microbatch: int = 0

    def to_json(self) -> dict[str, Any]:
        """The tables of a recipe's file; what has its default is left out, so that a new key renames no training."""
        return without_defaults(self)

    def fingerprint(self, seed: int) -> str:
        """Names what a training with this recipe and seed makes, of the texts that its source holds now."""
        return training_digest(self.to_json(), self.source, seed)


def training_digest(values: dict[str, Any], source: SourceRecipe | None, seed: int) -> str:
    """Names a training by its recipe's values, its seed and the names and sizes of its source's files."""
    return digest([values, seed, *([] if source is None else [sizes_of(source.path)])])


def built_in() -> list[str]:
    """The names of the recipes that come with the package."""
    folder = resources.files("edge_pretrain") / "recipes"
    return sorted(Path(file.name).stem for file in folder.iterdir() if file.name.endswith(".toml"))


def load_recipe(name: str, changes: Sequence[str] = (), texts: str | None = None) -> Recipe:
    """A built-in recipe by its name, or a TOML file by its path. Raises RecipeError.

    changes: TOML lines such as "phases.cotrain.steps = 1800", each replacing one value. texts: a source that takes the
    place of the recipe's own texts.
    """
    if name in built_in():
        where = f"{name}.toml"
        text = (resources.files("edge_pretrain") / "recipes" / where).read_text(encoding="utf-8")
    else:
        where, text = name, read_recipe(name)
    recipe = parse(Recipe, text, where, changes, "recipes/demo.toml", texts)
    _check(recipe, where)
    return recipe


def read_recipe(name: str) -> str:
    """The text of a file. Raises RecipeError."""
    try:
        return Path(name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(
            f"{name}: neither a recipe ({', '.join(built_in())}) nor a readable file: {error}"
        ) from error


def parse(
    kind: type[Kind], text: str, where: str, changes: Sequence[str], example: str, texts: str | None = None
) -> Kind:
    """The recipe of that kind in a TOML text. Raises RecipeError; example: the file that it names."""
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"{where}: not TOML: {error}") from error
    for change in changes:
        try:
            merge(values, tomllib.loads(change))
        except tomllib.TOMLDecodeError as error:
            raise RecipeError(
                f"--set {change}: {error}; write KEY=VALUE as TOML does, words in quotes: 'precision=\"bf16\"'"
            ) from error
    if texts is not None:
        merge(values, {"source": {"path": texts}})
        if kind is not Recipe:
            values.pop("corpus", None)
    try:
        recipe = _of(kind, values)
    except dacite.DaciteError as error:
        raise RecipeError(
            f"{where}: {said(error)}; {example} and docs/pretraining.md have every key"
        ) from error
    for key, value in numbers(values):
        if isinstance(value, bool) or not math.isfinite(value):
            raise RecipeError(f"{where}: {key} is {str(value).lower()}: write a number")
    check_source(getattr(recipe, "source", None), where)
    return recipe


def check_source(source: SourceRecipe | None, where: str) -> None:
    """Raises RecipeError."""
    if source is not None and not source.path.strip():
        raise RecipeError(f"{where}: source.path is empty: name the texts")
    if source is not None and source.limit < 0:
        raise RecipeError(f"{where}: source.limit is {source.limit}: documents at most, 0 for all")


def recipe_of(values: dict[str, Any]) -> Recipe:
    """The recipe that `Recipe.to_json`, or a TOML file, wrote. Raises dacite.DaciteError."""
    return _of(Recipe, values)


def _of(kind: type[Kind], values: dict[str, Any]) -> Kind:
    return dacite.from_dict(kind, values, dacite.Config(strict=True, cast=[tuple]))


def _check(recipe: Recipe, where: str) -> None:
    positive = {
        "tokens.sequence_length": recipe.tokens.sequence_length - 2,
        "controls.learning_rate": recipe.controls.learning_rate,
        "microbatch": recipe.microbatch + 1,
        "tokens.vocab_size": recipe.tokens.vocab_size - 257,  # bytes and the two special tokens
        **{f"corpus.{key}": value + 1 for key, value in asdict(recipe.corpus).items()},
        "corpus.facts_per_document": recipe.corpus.facts_per_document,
        **{f"anchor.{key}": value for key, value in asdict(recipe.anchor).items()},
        **{
            f"phases.{name}.{key}": phase[key]
            for name, phase in asdict(recipe.phases).items()
            for key in ("steps", "batch", "warmup", "learning_rate", "memory_learning_rate")
            if phase and key in phase
        },
    }
    for key, value in positive.items():
        if value <= 0:
            raise RecipeError(f"{where}: {key} is too small")
    for name, phase in asdict(recipe.phases).items():
        for key in ("weight_decay", "memory_weight_decay", "final"):
            if phase and phase.get(key, 0) < 0:
                raise RecipeError(f"{where}: phases.{name}.{key} is below 0")
    if recipe.anchor.head_dim % 2:
        raise RecipeError(f"{where}: anchor.head_dim must be even, for rotary positions")
    check_memory(recipe.tree, recipe.memory, where)
    if recipe.tokens.sequence_length > recipe.anchor.context_length:
        raise RecipeError(f"{where}: tokens.sequence_length exceeds anchor.context_length")


def check_memory(tree: TreeRecipe, memory: MemoryRecipe, where: str) -> None:
    """Raises RecipeError where the two do not fit."""
    positive = {"tree.fanout": tree.fanout - 1, "tree.depth": tree.depth}
    positive |= {f"memory.rows[{i}]": rows + 1 for i, rows in enumerate(memory.rows)}
    for key, value in positive.items():
        if value <= 0:
            raise RecipeError(f"{where}: {key} is too small")
    if len(memory.rows) != tree.depth or not any(memory.rows):
        raise RecipeError(f"{where}: memory.rows must name r of each of the {tree.depth} levels, not all 0")
