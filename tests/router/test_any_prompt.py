"""Any text routes somewhere, the same way each time: the tiny bundle's two routers."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_runtime import Runtime, _core
from edge_runtime.bundle import Bundle
from edge_runtime.embedders import open_embedder
from edge_runtime.errors import NotFoundError
from edge_runtime.router import Router
from edge_runtime.text import readable

ODD = {
    "empty": "",
    "blank": " \n\t",
    "NUL": "\0",
    "not UTF-8": b"\xff\xfe caf\xe9 \x80".decode("utf-8", "surrogateescape"),
    "lone surrogates": "\ud800 and \udfff",
    "emoji": "🧪🔥👩‍🔬🏳️‍🌈",
    "Chinese": "铪的原子序数是多少",
    "Arabic": "ما هو العدد الذري للهافنيوم؟",
    "combining": "e" + "\u0301" * 500,
    "huge": "the atomic number of hafnium " * 20_000,
    "one long word": "a" * 100_000,
}


def router_of(bundle: Bundle, name: str) -> Router:
    assert bundle.manifest.router is not None
    tree = _core.Tree(str(bundle.path_of(bundle.manifest.router.tree)))
    return Router(tree, open_embedder(bundle, name, 2), bundle.blocked)


@pytest.fixture(scope="module")
def static(tiny_bundle: Path) -> Router:
    return router_of(Bundle.open(tiny_bundle), "static")


@pytest.fixture(scope="module")
def minilm(tiny_bundle: Path) -> Router:
    return router_of(Bundle.open(tiny_bundle), "minilm")


def is_route(path: list[int]) -> bool:
    return len(path) == 2 and 0 <= path[0] < 4 and path[1] // 4 == path[0]


@pytest.mark.parametrize("text", ODD.values(), ids=ODD.keys())
def test_odd_prompts_route_somewhere(static: Router, text: str) -> None:
    route = static.route(text)
    assert is_route(route.path)
    assert static.route(text) == route


@pytest.mark.parametrize("name", [name for name in ODD if name not in ("huge", "one long word")])
def test_odd_prompts_route_somewhere_with_minilm(minilm: Router, name: str) -> None:
    route = minilm.route(ODD[name])
    assert is_route(route.path)
    assert minilm.route(ODD[name]) == route


@settings(max_examples=300, deadline=None)
@given(text=st.text(st.characters(codec=None), max_size=200))  # surrogates too
def test_every_text_routes_somewhere(static: Router, text: str) -> None:
    route = static.route(text)
    assert is_route(route.path)
    assert static.route(text) == route
    assert readable(readable(text)) == readable(text)


def test_readable_text_stays_as_it_is() -> None:
    for text in ("", "plain", "\ufeffmark", "漢字 🧪 e\u0301"):
        assert readable(text) == text
    assert readable("a\ud800b") == "a\ufffdb"


def test_a_runtime_takes_the_router_that_is_asked_for(tiny_bundle: Path) -> None:
    bundle = Bundle.open(tiny_bundle)
    prompt = "Hafnium. Hafnium is a transition metal."
    for name in ("static", "minilm"):
        runtime = Runtime.open(tiny_bundle, router=name)
        assert runtime.session().route(prompt) == router_of(bundle, name).route(prompt)
    with pytest.raises(NotFoundError, match="it has static, minilm"):
        Runtime.open(tiny_bundle, router="other")


def test_odd_prompts_are_answered(tiny_bundle: Path) -> None:
    with Runtime.open(tiny_bundle, router="static").session() as session:
        for name in ("not UTF-8", "lone surrogates", "emoji"):
            assert "".join(session.generate(ODD[name], max_tokens=2, stop=[])) is not None
            assert is_route(session.stats.path)
            assert "".join(session.chat(ODD[name], max_tokens=2)) is not None
