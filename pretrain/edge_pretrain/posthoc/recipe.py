"""The recipe of memories on a frozen Hugging Face anchor: the anchor brings its own dimensions and tokenizer."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import resources
from typing import Any

from edge_pretrain.cache import digest
from edge_pretrain.hf_folder import AnchorFolder
from edge_pretrain.recipe import (
    CorpusRecipe,
    FrozenPhase,
    MemoryRecipe,
    Precision,
    RecipeError,
    SourceRecipe,
    TreeRecipe,
    check_memory,
    parse,
    read_recipe,
    training_digest,
)
from edge_pretrain.recipe_values import without_defaults

DEFAULT = "recipe.toml"


@dataclass(frozen=True)
class TextsRecipe:
    """sequence_length: in tokens. held_out: the share of the texts that perplexity is measured on."""

    sequence_length: int
    held_out: float


@dataclass(frozen=True)
class PosthocRecipe:
    """One of `corpus` and `source`; source.tokenizer stays empty."""

    texts: TextsRecipe
    tree: TreeRecipe
    memory: MemoryRecipe
    frozen: FrozenPhase
    corpus: CorpusRecipe | None = None
    source: SourceRecipe | None = None
    precision: Precision = "f32"
    microbatch: int = 0

    def to_json(self) -> dict[str, Any]:
        """The tables of a recipe's file, without what has its default."""
        return without_defaults(self)

    def fingerprint(self, seed: int) -> str:
        return training_digest(self.to_json(), self.source, seed)


def load_posthoc_recipe(
    name: str | None, changes: Sequence[str] = (), texts: str | None = None
) -> PosthocRecipe:
    """A TOML file, or the recipe of this package for None. Raises RecipeError.

    changes: as `edge_pretrain.recipe.load_recipe`. texts: a source that takes the place of the recipe's own texts.
    """
    if name is None:
        where, text = DEFAULT, (resources.files(__package__) / DEFAULT).read_text(encoding="utf-8")
    else:
        where, text = name, read_recipe(name)
    recipe = parse(PosthocRecipe, text, where, changes, f"posthoc/{DEFAULT}", texts)
    if (recipe.corpus is None) == (recipe.source is None):
        raise RecipeError(f"{where}: one of [corpus] and [source] must say what is trained on")
    if recipe.source is not None and recipe.source.tokenizer:
        raise RecipeError(f"{where}: source.tokenizer: a Hugging Face anchor brings its own")
    positive: dict[str, float] = {
        "microbatch": recipe.microbatch + 1,
        "texts.sequence_length": recipe.texts.sequence_length - 2,
        "texts.held_out": recipe.texts.held_out,
        **{
            f"frozen.{key}": value
            for key, value in asdict(recipe.frozen).items()
            if key != "memory_weight_decay"
        },
    }
    for key, value in positive.items():
        if value <= 0:
            raise RecipeError(f"{where}: {key} is too small")
    if recipe.texts.held_out >= 1:
        raise RecipeError(f"{where}: texts.held_out is too large: it is a share, 0.02 for one text of fifty")
    check_memory(recipe.tree, recipe.memory, where)
    return recipe


def posthoc_fingerprint(recipe: PosthocRecipe, seed: int, folder: AnchorFolder) -> str:
    """Names what a training of memories for this anchor makes."""
    return digest([recipe.fingerprint(seed), folder.sha256()])
