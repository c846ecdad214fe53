from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from transformers.generation.logits_process import (
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from edge_runtime.errors import InvalidArgumentError
from edge_runtime.sampling import Sampler

LOGITS = hnp.arrays(np.float32, st.integers(1, 40), elements=st.floats(-50, 50, width=32))


@given(LOGITS)
def test_temperature_0_takes_the_likeliest(logits: np.ndarray) -> None:
    assert Sampler()(logits) == int(logits.argmax())


@given(LOGITS, st.floats(0.1, 5), st.integers(1, 40), st.integers(0, 9))
def test_top_k_draws_among_the_k_likeliest(logits: np.ndarray, temperature: float, k: int, seed: int) -> None:
    token = Sampler(temperature, top_k=k, seed=seed)(logits)
    assert (logits > logits[token]).sum() < k


@given(LOGITS, st.floats(0.1, 5), st.floats(0.01, 1), st.integers(0, 9))
def test_top_p_never_draws_beyond_the_threshold(
    logits: np.ndarray, temperature: float, p: float, seed: int
) -> None:
    token = Sampler(temperature, top_p=p, seed=seed)(logits)
    scaled = logits.astype(np.float64) / temperature
    probabilities = np.exp(scaled - scaled.max())
    probabilities /= probabilities.sum()
    assert probabilities[logits > logits[token]].sum() < p + 1e-9


def test_the_draws_follow_the_softmax() -> None:
    sampler = Sampler(2.0, seed=1)
    logits = np.log(np.array([0.7, 0.2, 0.1], np.float32)) * 2
    counts = np.bincount([sampler(logits) for _ in range(4000)], minlength=3) / 4000
    np.testing.assert_allclose(counts, [0.7, 0.2, 0.1], atol=0.03)


def test_equal_seeds_draw_equally_and_others_do_not() -> None:
    logits = np.zeros(1000, np.float32)

    def draws(seed: int) -> list[int]:
        sampler = Sampler(1.0, seed=seed)
        return [sampler(logits) for _ in range(5)]

    assert draws(3) == draws(3) != draws(4)


@pytest.mark.parametrize(
    "arguments",
    [
        {"temperature": -1},
        {"temperature": float("nan")},
        {"top_k": -1},
        {"top_p": 0},
        {"top_p": 1.1},
        {"seed": -1},
        {"min_p": 1.5},
        {"repetition_penalty": 0},
    ],
)
def test_arguments_out_of_range_are_refused(arguments: dict[str, float]) -> None:
    with pytest.raises(InvalidArgumentError, match=next(iter(arguments))):
        Sampler(**arguments)  # type: ignore[arg-type]


# Ties at a threshold are kept or not by the order of a sort: no test of the distribution.
DISTINCT = hnp.arrays(np.float32, st.integers(1, 40), elements=st.floats(-50, 50, width=32), unique=True)


@given(
    DISTINCT,
    st.floats(0.2, 3),
    st.integers(0, 40),
    st.floats(0.05, 1),
    st.floats(0, 0.5),
    st.floats(0.5, 2),
    st.lists(st.integers(0, 39), max_size=6),
)
def test_the_distribution_is_that_of_the_logits_processors_of_transformers(
    logits: np.ndarray, temperature: float, k: int, p: float, min_p: float, penalty: float, tokens: list[int]
) -> None:
    tokens = [token for token in tokens if token < len(logits)]
    scores = torch.tensor(logits)[None]
    ids = torch.tensor([tokens], dtype=torch.int64)
    processors = [RepetitionPenaltyLogitsProcessor(penalty), TemperatureLogitsWarper(temperature)]
    if k:
        processors.append(TopKLogitsWarper(k))
    processors += [TopPLogitsWarper(p), MinPLogitsWarper(min_p)]
    for processor in processors:
        scores = processor(ids, scores)
    wanted = scores.double().softmax(-1)[0].numpy()

    sampler = Sampler(temperature, k, p, 0, min_p, penalty)
    sampler.accept(tokens)
    found = sampler.probabilities(logits)
    if (found > 0).tolist() != (wanted > 0).tolist():
        # Their sums are in f32, ours in f64: a token may lie on the threshold itself.
        beside = np.flatnonzero((found > 0) != (wanted > 0))
        assert len(beside) == 1 or max(found[beside].max(), wanted[beside].max()) < 1e-6
        return
    np.testing.assert_allclose(found, wanted, atol=2e-6)


def test_the_draws_are_pcg32s() -> None:
    """O'Neill's demonstration: seed 42, stream 54. A draw takes the upper 27 and 26 bits of two outputs."""
    outputs = [0xA15C02B7, 0x7B47F409, 0xBA1D3330, 0x83D2F293, 0xBFA4784B, 0xCBED606E]
    sampler = Sampler(1.0, seed=42)
    logits = np.zeros(1024, np.float32)
    wanted = [
        ((high >> 5 << 26) + (low >> 6)) / 2**53
        for high, low in zip(outputs[::2], outputs[1::2], strict=True)
    ]
    assert [sampler(logits) for _ in wanted] == [int(u * 1024) for u in wanted]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_logits_that_are_not_finite_give_a_token(bad: float) -> None:
    logits = np.array([1.0, bad, 0.5], np.float32)
    wanted = 1 if bad == float("inf") else 0
    assert Sampler()(logits) == wanted
    assert Sampler(0.01)(logits) == wanted
    assert Sampler(1.0)(np.full(3, bad, np.float32)) == 0
