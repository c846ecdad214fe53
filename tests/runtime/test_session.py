"""Sessions on the tiny bundle: real router, pager and engine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from edge_pretrain.checkpoint import load
from edge_pretrain.model import MemoryRows
from edge_runtime import Runtime, Session
from edge_runtime.errors import (
    ContextOverflowError,
    InvalidArgumentError,
    NeverFitsError,
    UnsupportedError,
)

PROMPT = "Hafnium. Hafnium is a transition metal in period 6 of the periodic table. Its atomic number is"
OTHER = "Radon. Radon is a noble gas in period 6 of the periodic table. Its symbol is"


@pytest.fixture(scope="module")
def runtime(tiny_bundle: Path) -> Runtime:
    return Runtime.open(tiny_bundle, budget="200KB")


@pytest.fixture
def session(runtime: Runtime) -> Iterator[Session]:
    with runtime.session() as session:
        yield session


def answer(session: Session, prompt: str, **options: object) -> str:
    return "".join(session.generate(prompt, stop=[], **options))  # type: ignore[arg-type]


@pytest.mark.parametrize("memory", ["fetched", "generic", "none"])
def test_greedy_text_equals_the_reference(session: Session, tiny_checkpoint: Path, memory: str) -> None:
    text = answer(session, PROMPT, memory=memory, max_tokens=6)
    reference = load(tiny_checkpoint)
    rows = None
    if memory != "none":
        nodes = enumerate(session.stats.path, 1) if memory == "fetched" else [(0, 0)]
        blocks = [reference.memories.levels[level][node] for level, node in nodes]
        rows = MemoryRows(torch.cat(blocks, dim=2)[None], reference.memories.config.layers)
    tokens = reference.tokenizer.encode(PROMPT).ids
    for _ in range(6):
        with torch.inference_mode():
            tokens.append(int(reference.anchor(torch.tensor([tokens]), rows)[0, -1].argmax()))
    assert text == reference.tokenizer.decode(tokens)[len(PROMPT) :]


def test_the_stats_say_what_happened(session: Session) -> None:
    session.runtime.pager.shrink(10**9)  # type: ignore[union-attr]
    answer(session, PROMPT, max_tokens=5)
    stats = session.stats
    assert stats.path == [0, stats.path[1]]
    assert stats.bytes_read == 16384 + 32768
    assert stats.prompt_tokens == len(session.runtime.tokenizer.encode(PROMPT))
    assert stats.generated_tokens == 5
    assert stats.fetch_ms is not None
    assert stats.ttft_ms is not None
    assert 0 < stats.fetch_ms < stats.ttft_ms
    assert stats.decode_tokens_per_s is not None
    assert stats.bank_resident_bytes <= stats.budget_bytes < stats.bank_bytes
    assert stats.engine_constant_bytes < stats.resident_bytes
    # The same topic again reads nothing.
    answer(session, PROMPT, max_tokens=5)
    assert session.stats.bytes_read == 0


def test_a_blocked_node_and_its_subtree_are_avoided(session: Session) -> None:
    path = session.route(PROMPT).path
    assert session.route(PROMPT, [(2, path[1])]).path[0] == path[0]
    other = session.route(PROMPT, [(1, path[0])]).path
    assert other[0] != path[0]
    assert other[1] // 4 == other[0]
    answer(session, PROMPT, blocked=[(1, path[0])])
    assert session.stats.path == other


@pytest.mark.parametrize("node", [(0, 0), (3, 0), (1, 4), (2, -1)])
def test_a_blocked_node_that_is_not_in_the_tree_is_refused(session: Session, node: tuple[int, int]) -> None:
    with pytest.raises(InvalidArgumentError, match="blocked node"):
        answer(session, PROMPT, blocked=[node])


def test_a_budget_of_one_lease_serves_changing_topics(tiny_bundle: Path) -> None:
    with Session.open(tiny_bundle, budget=16384 + 32768) as session:
        for prompt in (PROMPT, OTHER, PROMPT):
            answer(session, prompt)
            assert session.stats.bytes_read > 0
        assert session.runtime.pager.stats()["peak_bytes"] <= 16384 + 32768  # type: ignore[union-attr]


def test_a_budget_too_small_names_the_smallest_that_works(tiny_bundle: Path) -> None:
    with Session.open(tiny_bundle, budget=40_000) as session:
        with pytest.raises(NeverFitsError, match="49152") as raised:
            answer(session, PROMPT)
        assert raised.value.required_bytes == 49152
    with Session.open(tiny_bundle, budget=raised.value.required_bytes) as session:
        answer(session, PROMPT)


def test_a_prompt_too_long_is_refused_before_anything_is_read(session: Session) -> None:
    before = session.runtime.pager.stats()["fetches"]  # type: ignore[union-attr]
    with pytest.raises(ContextOverflowError, match=r"tokens, and 96 are left of the context's 96"):
        answer(session, "word " * 300)
    assert session.runtime.pager.stats()["fetches"] == before  # type: ignore[union-attr]
    answer(session, PROMPT)


def test_generation_ends_with_the_context(session: Session) -> None:
    answer(session, PROMPT, max_tokens=1000)
    # The last token needs no place: nothing follows it.
    assert session.stats.prompt_tokens + session.stats.generated_tokens == 96 + 1


def test_a_generation_given_up_leaves_the_session_usable(session: Session) -> None:
    whole = answer(session, PROMPT)
    stream = session.generate(PROMPT, stop=[])
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert answer(session, PROMPT) == whole


def test_stop_texts_end_the_answer_and_are_not_shown(session: Session) -> None:
    whole = answer(session, PROMPT)
    middle = whole[len(whole) // 2]
    assert "".join(session.generate(PROMPT, stop=[middle])) == whole[: whole.index(middle)]


def test_a_seed_repeats_a_draw(session: Session) -> None:
    draws = [answer(session, PROMPT, temperature=3.0, seed=seed) for seed in (1, 1, 2)]
    assert draws[0] == draws[1] != draws[2]


def test_chat_keeps_the_cache_and_routes_each_message(session: Session) -> None:
    positions, paths = [], []
    for message in (PROMPT, OTHER):
        assert "".join(session.chat(message, stop=[], max_tokens=3))
        positions.append(session._context.position)
        paths.append(session.stats.path)
    assert positions[1] > positions[0] + session.stats.prompt_tokens - 2
    assert paths[0] != paths[1]
    assert paths[1] == session.route(OTHER).path
    session.reset()
    assert session._context.position == 0


def test_chat_gives_the_logits_of_the_whole_conversation(session: Session, tiny_checkpoint: Path) -> None:
    reference = load(tiny_checkpoint)
    first = "".join(session.chat("hello", stop=[], max_tokens=3, memory="none"))
    second = "".join(session.chat("again", stop=[], max_tokens=3, memory="none"))
    # Where the first answer is whole text, the plain template's conversation can be tokenized again as it was.
    prompt = reference.tokenizer.encode("hello").ids
    tokens = list(prompt)
    for extra in (3, 3):
        for _ in range(extra):
            with torch.inference_mode():
                tokens.append(int(reference.anchor(torch.tensor([tokens]))[0, -1].argmax()))
        if len(tokens) == len(prompt) + 3:
            assert first == reference.tokenizer.decode(tokens)[len("hello") :]
            tokens += reference.tokenizer.encode("\nagain").ids
            start = len(tokens)
    assert second == reference.tokenizer.decode(tokens)[len(reference.tokenizer.decode(tokens[:start])) :]


def test_sessions_share_blocks_and_not_the_conversation(runtime: Runtime) -> None:
    with runtime.session() as one, runtime.session() as other:
        text = answer(one, PROMPT)
        stream = one.generate(PROMPT, stop=[])
        parts = [next(stream)]
        assert answer(other, PROMPT) == text
        assert other.stats.bytes_read == 0
        assert "".join([*parts, *stream]) == text


def test_arguments_are_checked_at_the_call(session: Session) -> None:
    with pytest.raises(InvalidArgumentError, match="max_tokens"):
        session.generate(PROMPT, max_tokens=0)
    with pytest.raises(InvalidArgumentError, match="memory"):
        session.generate(PROMPT, memory="some")  # type: ignore[arg-type]
    with pytest.raises(InvalidArgumentError, match="empty"):
        answer(session, "")


def test_an_engine_that_is_not_there_is_named(tiny_bundle: Path) -> None:
    with pytest.raises(UnsupportedError, match="it has executorch"):
        Runtime.open(tiny_bundle, engine="onnx")


def test_the_footprint_adds_up(runtime: Runtime, tiny_bundle: Path) -> None:
    footprint = runtime.footprint
    assert footprint.bank_bytes == sum(path.stat().st_size for path in tiny_bundle.glob("memory/level*"))
    assert footprint.weights_bytes == (tiny_bundle / "anchor.paged.pte").stat().st_size
    assert footprint.kv_bytes == 2 * 4 * 4 * 2 * 32 * 96
    assert np.isclose(footprint.budget_bytes, 200_000)
