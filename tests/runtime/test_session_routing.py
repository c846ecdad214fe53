"""When a session routes, what it then reads, and that its KV cache stays: the tiny bundle, real pager and engine."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_runtime import Runtime, Session
from edge_runtime.routing import RoutingPolicy

HAFNIUM = "Hafnium. Hafnium is a transition metal in period 6 of the periodic table."
LISBON = "Lisbon. Lisbon is a city on the coast."


@pytest.fixture(scope="module")
def runtime(tiny_bundle: Path) -> Runtime:
    # Room for the leases of several sessions: a generator that a test leaves open keeps its own.
    return Runtime.open(tiny_bundle, budget="1MB")


def say(session: Session, message: str, **options: object) -> str:
    return "".join(session.chat(message, stop=[], max_tokens=4, **options))  # type: ignore[arg-type]


def test_each_turn_is_routed_by_itself_unless_told_otherwise(runtime: Runtime) -> None:
    with runtime.session() as session:
        say(session, HAFNIUM)
        first = session.stats.path
        say(session, LISBON)
        assert session.stats.path == session.route(LISBON).path != first
        assert session.stats.routes == 1
        assert session.stats.switches == 0


def test_a_conversation_can_keep_the_path_of_its_first_message(runtime: Runtime) -> None:
    with runtime.session(RoutingPolicy(when="prompt")) as session:
        say(session, HAFNIUM)
        first, position = session.stats.path, session._context.position
        say(session, LISBON)
        assert session.stats.path == first == session.route(HAFNIUM).path
        assert session.stats.bytes_read == 0
        assert session._context.position > position
        session.reset()
        say(session, LISBON)
        assert session.stats.path == session.route(LISBON).path


def test_hysteresis_holds_a_topic_that_is_nearly_as_near(runtime: Runtime) -> None:
    with runtime.session(RoutingPolicy(hysteresis=10.0)) as session:
        say(session, HAFNIUM)
        first = session.stats.path
        say(session, LISBON)
        assert session.stats.path == first
        assert min(session.stats.margins) < 0


def test_routing_while_it_writes_switches_blocks_and_keeps_the_cache(runtime: Runtime) -> None:
    policy = RoutingPolicy(when="tokens", every=4, window=6)
    with runtime.session(policy) as session:
        text = "".join(session.generate(HAFNIUM, stop=[], max_tokens=24))
        stats = session.stats
        assert stats.generated_tokens == 24
        assert stats.routes == 1 + 23 // 4
        # Random text of a random model does not stay on the topic of its prompt.
        assert stats.switches > 0
        # Each token went into one KV cache, whatever was fetched meanwhile.
        assert session._context.position == stats.prompt_tokens + 23
        assert "".join(session.generate(HAFNIUM, stop=[], max_tokens=24)) == text
    with runtime.session() as session:
        assert "".join(session.generate(HAFNIUM, stop=[], max_tokens=4)) == text[: len(session.stats.text)]


def test_a_router_that_is_never_sure_reads_the_generic_memory(runtime: Runtime) -> None:
    with runtime.session() as session:
        generic = "".join(session.generate(HAFNIUM, memory="generic", stop=[]))
        fetched = "".join(session.generate(HAFNIUM, stop=[]))
    with runtime.session(RoutingPolicy(min_margin=1e6)) as session:
        assert "".join(session.generate(HAFNIUM, stop=[])) == generic != fetched
        assert session.stats.memory == "generic"
        assert session.stats.path == []


def test_an_unsure_level_and_those_below_are_not_fetched(runtime: Runtime) -> None:
    with runtime.session() as session:
        margins = session.route(HAFNIUM).margins
    between = (margins[0] + margins[1]) / 2
    assert margins[1] < between < margins[0], margins
    with runtime.session(RoutingPolicy(min_margin=between)) as session:
        "".join(session.generate(HAFNIUM))
        assert len(session.stats.path) == 1
        assert session.stats.memory == "fetched"


def test_the_blocks_of_several_paths_are_read_together(tiny_bundle: Path) -> None:
    # A runtime of its own: what others have read would cost nothing here.
    with Session.open(tiny_bundle, budget="1MB", routing=RoutingPolicy(top_paths=2)) as session:
        "".join(session.generate(HAFNIUM))
        route = session.route(HAFNIUM)
        level1, level2 = ([node for node in route.nodes if node[0] == level] for level in (1, 2))
        assert len(level2) == 2
        assert session.stats.bytes_read == 16384 * len(level1) + 32768 * len(level2)
        assert session.stats.path == route.path
