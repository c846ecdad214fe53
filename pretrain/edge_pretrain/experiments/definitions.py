"""What each experiment varies. A variant is the recipe with a few values changed, so that all else stays equal."""

from collections.abc import Callable
from dataclasses import dataclass
from math import prod

from edge_pretrain.evaluate import Mode
from edge_pretrain.memory_types import TYPES
from edge_pretrain.recipe import Recipe
from edge_pretrain.reproduce import Model

FROZEN_BATCH = 4  # sequences a step of each subtree


@dataclass(frozen=True)
class Variant:
    """changes: TOML lines for `load_recipe`. snapshots: steps of co-training that are scored as well."""

    name: str
    changes: tuple[str, ...] = ()
    model: Model = "memory"
    modes: tuple[Mode, ...] = ("fetched",)
    snapshots: tuple[int, ...] = ()


@dataclass(frozen=True)
class Experiment:
    """`claim`: what the paper found, which the runs confirm or do not."""

    name: str
    claim: str
    variants: Callable[[Recipe], tuple[Variant, ...]]


def _rows(rows: list[int] | tuple[int, ...]) -> str:
    return f"memory.rows = {list(rows)}"


def figure1(recipe: Recipe) -> tuple[Variant, ...]:
    return (
        Variant("baseline", model="baseline", modes=("baseline",)),
        Variant("dense_control", model="dense_control", modes=("baseline",)),
        Variant("memory", modes=("generic", "fetched", "blocked", "random")),
    )


def memory_types(recipe: Recipe) -> tuple[Variant, ...]:
    """Each type with the rows that come nearest to the recipe's fetched size."""

    def size(kind: str) -> int:
        return prod(TYPES[kind].shape(recipe.anchor, 1))

    def rows(kind: str) -> list[int]:
        scale = size(recipe.memory.kind) / size(kind)
        return [max(1, round(r * scale)) if r else 0 for r in recipe.memory.rows]

    return tuple(Variant(kind, (f'memory.kind = "{kind}"', _rows(rows(kind)))) for kind in TYPES)


def depth(recipe: Recipe) -> tuple[Variant, ...]:
    """All fetched rows at one level, against the recipe's spread over the levels."""
    total, levels = sum(recipe.memory.rows), range(recipe.tree.depth)
    single = (Variant(f"level {i + 1}", (_rows([total if j == i else 0 for j in levels]),)) for i in levels)
    return (*single, Variant("as in the recipe"))


def placement(recipe: Recipe) -> tuple[Variant, ...]:
    """Half of the layers carry memory, each twice as much."""
    half = tuple(
        Variant(name, (f'memory.placement = "{name}"', _rows([2 * r for r in recipe.memory.rows])))
        for name in ("early", "middle", "late")
    )
    return (*half, Variant("uniform"))


def size(recipe: Recipe) -> tuple[Variant, ...]:
    return tuple(
        Variant(name, (_rows([max(1, int(r * scale)) if r else 0 for r in recipe.memory.rows]),))
        for name, scale in (("x 1/4", 0.25), ("x 1/2", 0.5), ("x 1", 1), ("x 2", 2))
    )


def training(recipe: Recipe) -> tuple[Variant, ...]:
    """Frozen memories start from an anchor that was trained on all tokens, and see as many once more: so there is
    co-training from that anchor as well, which is what Pouransari et al. 2025 compare them with (rows A2, A3).
    """
    anchor, cotrain = recipe.phases.anchor, recipe.phases.cotrain
    total = anchor.steps + cotrain.steps * cotrain.batch // anchor.batch
    units = recipe.tree.fanout + 1
    steps = max(1, cotrain.steps * cotrain.batch // (units * FROZEN_BATCH))
    whole = (
        f"phases.anchor.steps = {total}",
        f"phases.anchor.learning_rate = {recipe.controls.learning_rate}",
    )
    frozen = (
        *whole,
        f"phases.frozen = {{steps = {steps}, batch = {FROZEN_BATCH}, warmup = {cotrain.warmup}, "
        f"memory_learning_rate = {cotrain.memory_learning_rate}, "
        f"memory_weight_decay = {cotrain.memory_weight_decay}}}",
    )
    scratch = ("phases.anchor.steps = 1", f"phases.cotrain.steps = {total}")
    modes: tuple[Mode, ...] = ("generic", "fetched")
    return (
        Variant("co-trained", modes=modes),
        Variant("frozen", frozen, modes=modes),
        Variant("co-trained from a trained anchor", whole, modes=modes),
        Variant("from scratch", scratch, modes=modes),
    )


def blocking(recipe: Recipe) -> tuple[Variant, ...]:
    return (
        Variant("memory", modes=("fetched", "blocked", "random", "generic")),
        Variant("baseline", model="baseline", modes=("baseline",)),
    )


def over_time(recipe: Recipe) -> tuple[Variant, ...]:
    quarters = tuple(recipe.phases.cotrain.steps * i // 4 for i in (1, 2, 3))
    return (Variant("memory", modes=("generic", "fetched"), snapshots=quarters),)


EXPERIMENTS = {
    experiment.name: experiment
    for experiment in (
        Experiment(
            "figure1",
            "on rare facts fetched memory is far above the anchor alone and above as many parameters in the "
            "anchor; blocking the best-matching sixteenth of the bank takes it away",
            figure1,
        ),
        Experiment("memory-types", "FFN above LoRA above KV at equal fetched size", memory_types),
        Experiment("depth", "deeper levels are better at equal fetched size", depth),
        Experiment("placement", "late or uniform above early at equal fetched size", placement),
        Experiment("size", "more fetched parameters, and a larger bank, are better", size),
        Experiment("training", "co-trained above frozen above from scratch", training),
        Experiment(
            "blocking", "without the best-matching sixteenth accuracy on rare facts collapses", blocking
        ),
        Experiment(
            "over-time", "the gap between fetched and generic memory opens as training goes on", over_time
        ),
    )
}
