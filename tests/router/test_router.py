"""Routing over a small tree of the real core, with an embedder that a test can steer."""

from __future__ import annotations

import itertools
import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_runtime import _core
from edge_runtime.errors import InvalidArgumentError, UnsupportedError
from edge_runtime.manifest import EmbedderSpec, RouterSpec
from edge_runtime.router import Route, Router
from edge_runtime.routing import RoutingPolicy, Topic
from edge_runtime.runtime import router_for

FANOUT, DEPTH, DIM = 3, 3, 4


class Named:
    """A text is the numbers that it holds."""

    def embed(self, text: str) -> npt.NDArray[np.float32]:
        return np.array(text.split(), np.float32)


def centroids() -> list[npt.NDArray[np.float32]]:
    random = np.random.default_rng(2)
    return [random.standard_normal((FANOUT**level, DIM)).astype(np.float32) for level in range(1, DEPTH + 1)]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> _core.Tree:
    path = str(tmp_path_factory.mktemp("tree") / "tree.safetensors")
    counts = [np.ones(FANOUT**level, np.int32) for level in range(1, DEPTH + 1)]
    _core.write_tree(path, FANOUT, centroids(), counts)
    return _core.Tree(path)


@pytest.fixture
def router(tree: _core.Tree) -> Router:
    return Router(tree, Named())


def text(point: npt.ArrayLike) -> str:
    return " ".join(map(repr, np.asarray(point, np.float32).tolist()))


def every_path(point: npt.NDArray[np.float32]) -> list[tuple[list[int], float]]:
    """All paths by what they concede, from the definition."""
    found = []
    for choices in itertools.product(range(FANOUT), repeat=DEPTH):
        path, conceded, node = [], 0.0, 0
        for level, choice in enumerate(choices):
            children = centroids()[level][node * FANOUT : (node + 1) * FANOUT].astype(np.float64)
            distances = np.square(children - point).sum(axis=1)
            conceded += distances[choice] - distances.min()
            node = node * FANOUT + choice
            path.append(node)
        found.append((path, float(conceded)))
    return sorted(found, key=lambda pair: (pair[1], pair[0]))


@settings(max_examples=50, deadline=None)
@given(point=st.lists(st.floats(-3, 3, width=32), min_size=DIM, max_size=DIM), count=st.integers(1, 27))
def test_the_best_paths_are_those_that_concede_least(
    tree: _core.Tree, point: list[float], count: int
) -> None:
    where = np.array(point, np.float32)
    wanted = every_path(where)[:count]
    found = tree.rank(where, count)
    assert found[0][0] == tree.descend(where)[0]
    assert [conceded for _, conceded in found] == pytest.approx([c for _, c in wanted], abs=1e-5)
    for path, conceded in found:
        assert tree.conceded(where, path) == conceded


def test_the_others_are_the_next_best(router: Router, tree: _core.Tree) -> None:
    prompt = text([0.3, -0.2, 0.5, 0.1])
    route = router.route(prompt, top_paths=3)
    ranked = tree.rank(np.array(prompt.split(), np.float32), 3)
    assert [route.path, *(path for path, _ in route.others)] == [path for path, _ in ranked]
    assert router.route(prompt).others == []
    assert {node for node in route.nodes if node[0] == 3} == {(3, path[2]) for path, _ in ranked}
    with pytest.raises(InvalidArgumentError, match="0 paths"):
        router.route(prompt, top_paths=0)


def test_a_route_ends_before_the_first_level_it_is_not_sure_of() -> None:
    route = Route([1, 4, 13], [0.5, 0.1, 0.4], [([1, 4, 12], 0.4)])
    assert route.confident(0.1) == route
    assert route.confident(0.2) == Route([1], [0.5])
    assert route.confident(0.6) == Route([], [])
    assert Route([1], [math.inf]).confident(1e30).path == [1]


@pytest.mark.parametrize(("installed", "taken"), [(True, "minilm"), (False, "static")])
def test_the_default_embedder_gives_way_only_where_its_engine_is_missing(
    monkeypatch: pytest.MonkeyPatch, installed: bool, taken: str
) -> None:
    def load(engine: str) -> None:
        if not installed:
            raise UnsupportedError(f"no {engine} here")

    monkeypatch.setattr("edge_runtime.engines.load", load)
    embedders = tuple(
        EmbedderSpec(name, engine, "", "") for name, engine in (("minilm", "executorch"), ("static",) * 2)
    )
    assert router_for(RouterSpec("", 1, 1, embedders, "minilm"), "native") == taken
    assert router_for(RouterSpec("", 1, 1, embedders, "static"), "native") == "static"
    assert router_for(RouterSpec("", 1, 1, embedders[:1], "minilm"), "native") == "minilm"


def test_a_path_in_use_is_kept_within_the_hysteresis(router: Router, tree: _core.Tree) -> None:
    point = np.array([0.3, -0.2, 0.5, 0.1], np.float32)
    (best, _), (second, conceded) = tree.rank(point, 2)
    assert router.route(text(point), keep=second, hysteresis=conceded * 1.01).path == second
    assert router.route(text(point), keep=second, hysteresis=conceded * 0.99).path == best
    kept = router.route(text(point), keep=second, hysteresis=conceded * 1.01)
    assert min(kept.margins) == pytest.approx(-conceded, rel=1e-4)
    # A blocked path is not kept at any price.
    assert router.route(text(point), [(1, second[0])], keep=second, hysteresis=math.inf).path[0] != second[0]
    with pytest.raises(InvalidArgumentError, match="no child"):
        router.route(text(point), keep=[0, 8], hysteresis=1)


def test_a_topic_follows_its_policy(router: Router, tree: _core.Tree) -> None:
    here, there = centroids()[0][0] * 2, centroids()[0][1] * 2
    path_here, path_there = (tree.descend(point)[0] for point in (here, there))
    assert path_here[0] != path_there[0]
    turn = Topic(router, RoutingPolicy())
    assert [turn.route(text(point), ()).path for point in (here, there)] == [path_here, path_there]
    prompt = Topic(router, RoutingPolicy(when="prompt"))
    assert [prompt.route(text(point), ()).path for point in (here, there)] == [path_here, path_here]
    prompt.reset()
    assert prompt.route(text(there), ()).path == path_there
    stubborn = Topic(router, RoutingPolicy(hysteresis=1e6))
    assert [stubborn.route(text(point), ()).path for point in (here, there)] == [path_here, path_here]
    unsure = Topic(router, RoutingPolicy(min_margin=1e6))
    assert unsure.route(text(here), ()).path == []
    assert unsure.route(text(here), ()).path == path_here
    assert unsure.route(text(there), ()).path == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"when": "never"},
        {"every": 0},
        {"window": 0},
        {"top_paths": 0},
        {"hysteresis": -1},
        {"min_margin": math.nan},
    ],
)
def test_a_policy_that_makes_no_sense_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(InvalidArgumentError, match="routing"):
        RoutingPolicy(**wrong)  # type: ignore[arg-type]
