"""What of a prompt the KV cache holds already is not computed again, and changes no logit."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edge_export.bundle import export_bundle
from edge_export.source import ExportConfig, Source
from edge_runtime.prefix import PrefixCache
from edge_runtime.runtime import Runtime
from edge_runtime.session import Session

SYSTEM = "You know the periodic table and little else. "
PROMPTS = [SYSTEM + "Hafnium is", SYSTEM + "Radon is a noble gas"]
ONE, OTHER = (1, ((1, 0), (2, 1))), (1, ((1, 0), (2, 2)))


@pytest.fixture(scope="module")
def runtime(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Runtime:
    out = tmp_path_factory.mktemp("prefix") / "i8.bundle"
    config = ExportConfig("i8", "f32", 16, None, ("static",), "i8", (("native", "paged"),))
    export_bundle(Source.open(tiny_checkpoint), out, config, lambda step: None)
    return Runtime.open(out, engine="native", router="static")


@pytest.fixture
def session(runtime: Runtime) -> Iterator[Session]:
    with runtime.session() as session:
        yield session


def answer(session: Session, prompt: str, **options: object) -> str:
    return "".join(session.generate(prompt, **({"stop": [], "max_tokens": 6} | options)))  # type: ignore[arg-type]


def tokens_of(runtime: Runtime, text: str) -> list[int]:
    ids: list[int] = runtime.tokenizer.encode(text)
    return ids


def test_a_shared_beginning_is_kept_and_changes_no_logit(runtime: Runtime) -> None:
    one, other = (tokens_of(runtime, prompt) for prompt in PROMPTS)
    shared = next(i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
    assert shared > 10
    cache, fresh = (PrefixCache(runtime.engine.new_context()) for _ in range(2))
    assert cache.prefill([], one, 0, ONE)[1] == 0
    kept, held = cache.prefill([], other, 0, ONE)
    assert held == shared
    wanted, nothing = fresh.prefill([], other, 0, ONE)
    assert nothing == 0
    np.testing.assert_array_equal(kept, wanted)
    assert cache.position == len(other)
    # The same prompt again: its last token is computed, for its logits.
    again, held = cache.prefill([], other, 0, ONE)
    assert held == len(other) - 1
    np.testing.assert_array_equal(again, wanted)


@pytest.mark.parametrize("memory", [OTHER, (2, ONE[1]), (1, ())])
def test_other_blocks_or_another_revision_hold_nothing(runtime: Runtime, memory: object) -> None:
    cache, tokens = PrefixCache(runtime.engine.new_context()), tokens_of(runtime, PROMPTS[0])
    cache.prefill([], tokens, 0, ONE)
    assert cache.prefill([], tokens, 0, memory)[1] == 0  # type: ignore[arg-type]
    # What was made last is there now, and nothing else.
    assert cache.prefill([], tokens, 0, ONE)[1] == 0


def test_blocks_that_changed_on_the_way_end_what_is_held(runtime: Runtime) -> None:
    cache, tokens = PrefixCache(runtime.engine.new_context()), tokens_of(runtime, PROMPTS[0])
    cache.prefill([], tokens[:8], 0, ONE)
    cache.append(tokens[8:12], 0, OTHER)
    assert cache.prefill([], tokens, 0, ONE)[1] == 8


def test_a_conversation_is_kept_whatever_made_it(runtime: Runtime) -> None:
    cache, tokens = PrefixCache(runtime.engine.new_context()), tokens_of(runtime, PROMPTS[0])
    cache.prefill([], tokens[:8], 0, ONE)
    assert cache.prefill(tokens[:8], tokens[8:], 0, OTHER)[1] == 0
    assert cache.position == len(tokens)


@pytest.mark.parametrize("memory", ["fetched", "generic", "none"])
def test_answers_are_those_of_a_new_session(runtime: Runtime, session: Session, memory: str) -> None:
    for prompt in (PROMPTS[0], *PROMPTS, PROMPTS[0]):
        with runtime.session() as fresh:
            wanted = answer(fresh, prompt, memory=memory)
            assert fresh.stats.cached_tokens == 0
            path = fresh.stats.path
        assert answer(session, prompt, memory=memory) == wanted
        assert session.stats.path == path
    assert answer(session, PROMPTS[0], memory=memory) == wanted
    assert session.stats.cached_tokens == session.stats.prompt_tokens - 1


def test_a_blocked_path_brings_other_blocks_and_holds_nothing(session: Session) -> None:
    answer(session, PROMPTS[0])
    answer(session, PROMPTS[0], blocked=[(1, session.stats.path[0])])
    assert session.stats.cached_tokens == 0


def test_reset_forgets(session: Session) -> None:
    answer(session, PROMPTS[0])
    session.reset()
    answer(session, PROMPTS[0])
    assert session.stats.cached_tokens == 0


def test_a_chat_after_an_answer_begins_anew(runtime: Runtime, session: Session) -> None:
    answer(session, PROMPTS[0], memory="none")
    with runtime.session() as fresh:
        wanted = [
            "".join(fresh.chat(text, memory="none", max_tokens=4, stop=[])) for text in ("hello", "again")
        ]
    found = ["".join(session.chat(text, memory="none", max_tokens=4, stop=[])) for text in ("hello", "again")]
    assert found == wanted


def test_an_engine_whose_bits_depend_on_calls_holds_nothing(tiny_bundle: Path) -> None:
    with Session.open(tiny_bundle, engine="executorch") as session:
        text = answer(session, PROMPTS[0])
        assert answer(session, PROMPTS[0]) == text
        assert session.stats.cached_tokens == 0
