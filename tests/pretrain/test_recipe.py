import subprocess
import sys
from math import prod
from pathlib import Path

import pytest
from tiny_recipe import TINY

from edge_pretrain.memories import MemoryConfig
from edge_pretrain.model import PAPER_ANCHORS
from edge_pretrain.posthoc.recipe import load_posthoc_recipe
from edge_pretrain.recipe import RecipeError, built_in, load_recipe, recipe_of


def write(directory: Path, text: str) -> str:
    path = directory / "recipe.toml"
    path.write_text(text)
    return str(path)


def test_the_demo_is_built_in():
    assert "demo" in built_in()
    recipe = load_recipe("demo")
    assert (recipe.tree.fanout, recipe.tree.depth) == (16, 2)
    assert recipe.tokens.sequence_length <= recipe.anchor.context_length


@pytest.mark.parametrize("name", built_in())
def test_every_built_in_recipe_can_be_loaded(name: str):
    recipe = load_recipe(name)
    assert recipe_of(recipe.to_json()) == recipe


def test_the_recipe_of_figure_1_is_the_demo_with_more_facts_and_more_steps():
    demo, figure1 = load_recipe("demo"), load_recipe("figure1")
    assert (figure1.anchor, figure1.memory, figure1.tree) == (demo.anchor, demo.memory, demo.tree)
    assert (figure1.tokens, figure1.controls) == (demo.tokens, demo.controls)
    assert figure1.corpus.people + figure1.corpus.places == 4 * (demo.corpus.people + demo.corpus.places)


def test_a_recipe_is_read_from_a_file(tmp_path: Path):
    recipe = load_recipe(write(tmp_path, TINY))
    assert recipe.memory.rows == (2, 4)
    assert recipe.phases.cotrain.memory_learning_rate == 1e-2


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("fanout = 4", "fanout = 4\nfanuot = 5", "fanuot"),
        ("zipf = 1.0\n", "", r"corpus\.zipf"),
        ("fanout = 4", 'fanout = "four"', r"tree\.fanout"),
        ("[memory]\nrows = [2, 4]\n", "", "memory"),
        ("fanout = 4", "fanout = ", "Invalid value"),
        ("rows = [2, 4]", "rows = [2]", "each of the 2 levels"),
        ("rows = [2, 4]", "rows = [0, 0]", "not all 0"),
        ("rows = [2, 4]", "rows = [-1, 4]", r"memory\.rows\[0\] is too small"),
        ("fanout = 4", "fanout = 1", r"tree\.fanout is too small"),
        ("vocab_size = 300", "vocab_size = 200", r"tokens\.vocab_size is too small"),
        ("context_length = 96", "context_length = 32", "exceeds anchor.context_length"),
        ("[phases.anchor]\nsteps = 6", "[phases.anchor]\nsteps = 0", r"phases\.anchor\.steps is too small"),
        ("places = 0", "places = -1", r"corpus\.places is too small"),
        ("zipf = 1.0", "zipf = nan", r"corpus\.zipf is nan"),
        ("fanout = 4", "fanout = true", r"tree\.fanout is true"),
        ("rows = [2, 4]", 'rows = [2, 4]\nkind = "kvv"', r"must be one of ffn, .*kv"),
        ("fanout = 4", "fanuot = 4", "unknown key fanuot|tree.fanout is missing"),
        ("[tree]", '[source]\npath = " "\n[tree]', r"source\.path is empty"),
        ("[tree]", '[source]\npath = "x"\nlimit = -1\n[tree]', r"source\.limit is -1"),
    ],
)
def test_a_bad_recipe_is_refused_with_one_line(tmp_path: Path, old: str, new: str, says: str):
    assert old in TINY
    path = write(tmp_path, TINY.replace(old, new))
    with pytest.raises(RecipeError, match=says) as caught:
        load_recipe(path)
    assert str(caught.value).startswith(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("phases.cotrain.learning_rate = inf", r"phases\.cotrain\.learning_rate is inf"),
        ("phases.anchor.weight_decay = -1.0", r"phases\.anchor\.weight_decay is below 0"),
        ("controls.learning_rate = -1.0", r"controls\.learning_rate is too small"),
        ("tokens.sequence_length = 2", r"tokens\.sequence_length is too small"),
        ("anchor.head_dim = 15", r"anchor\.head_dim must be even"),
        ("precision = bf16", r"^--set precision = bf16: .*words in quotes"),
        ("microbach = 3", "unknown key microbach; .*docs/pretraining.md"),
    ],
)
def test_a_bad_change_is_refused(tmp_path: Path, change: str, says: str):
    with pytest.raises(RecipeError, match=says):
        load_recipe(write(tmp_path, TINY), [change])


def test_memories_of_another_anchor_refuse_a_microbatch_below_0():
    with pytest.raises(RecipeError, match="microbatch is too small"):
        load_posthoc_recipe(None, ["microbatch = -1"])


def test_an_unknown_name_lists_the_recipes():
    with pytest.raises(RecipeError, match=r"nonesuch: neither a recipe \(.*demo.*\) nor a readable file"):
        load_recipe("nonesuch")


def test_the_fingerprint_follows_every_value(tmp_path: Path):
    recipe = load_recipe(write(tmp_path, TINY))
    assert recipe.fingerprint(0) == load_recipe(write(tmp_path, TINY)).fingerprint(0)
    other = load_recipe(write(tmp_path, TINY.replace("warmup = 2", "warmup = 3")))
    assert len({recipe.fingerprint(0), recipe.fingerprint(1), other.fingerprint(0)}) == 3


def test_loading_a_recipe_needs_no_torch():
    code = "import sys, edge_pretrain.cli as c; c.load_recipe('demo'); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_key_with_its_default_names_the_same_training(tmp_path: Path):
    plain = load_recipe(write(tmp_path, TINY))
    spelt = load_recipe(
        write(tmp_path, TINY.replace("[memory]", '[memory]\nkind = "ffn"\nplacement = "uniform"'))
    )
    other = load_recipe(write(tmp_path, TINY.replace("[memory]", '[memory]\nkind = "kv"')))
    assert plain.fingerprint(0) == spelt.fingerprint(0) != other.fingerprint(0)
    assert recipe_of(plain.to_json()) == plain
    assert recipe_of(other.to_json()) == other


@pytest.mark.parametrize(
    ("placement", "layers"),
    [("uniform", (0, 1, 2, 3, 4)), ("early", (0, 1, 2)), ("middle", (1, 2, 3)), ("late", (2, 3, 4))],
)
def test_placements_choose_half_of_the_layers(tmp_path: Path, placement: str, layers: tuple[int, ...]):
    recipe = load_recipe(write(tmp_path, TINY.replace("[memory]", f'[memory]\nplacement = "{placement}"')))
    assert recipe.memory.layers(5) == layers


@pytest.mark.parametrize("name", built_in())
def test_every_recipe_that_comes_along_loads(name: str):
    recipe = load_recipe(name)
    assert recipe.memory.layers(recipe.anchor.layers)


def test_the_gpu_recipe_has_the_papers_parameters():
    """Row A2 of Pouransari et al. 2025: 163,510,016 of the anchor, a bank of 4.6B, 18M fetched."""
    from rich.console import Console

    from edge_pretrain.pipeline import Run

    run = Run(load_recipe("gpu-160M"), 0, Path("unused"), Console())
    assert run.anchor_config() == PAPER_ANCHORS["160M"]
    assert run.anchor_config().parameters == 163_510_016
    config: MemoryConfig = run.memory_config
    shapes = config.shapes(run.anchor_config())
    assert prod(shapes[0]) == config.fetched_parameters(run.anchor_config()) == 18_063_360
    assert sum(prod(shape) for level, shape in shapes.items() if level) == 4_624_220_160
    assert run.compute.precision == "bf16"
    assert run.compute.sharding == "fsdp"
    assert run.recipe.phases.anchor.final == 0.01
    assert run.recipe.phases.cotrain.final == 0.1
