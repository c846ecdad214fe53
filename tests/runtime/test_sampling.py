from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

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
    ],
)
def test_arguments_out_of_range_are_refused(arguments: dict[str, float]) -> None:
    with pytest.raises(InvalidArgumentError, match=next(iter(arguments))):
        Sampler(**arguments)  # type: ignore[arg-type]
