"""Chooses the next token from logits: the core's sampler, for every engine."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from edge_runtime import _core
from edge_runtime.errors import InvalidArgumentError


class Sampler:
    """Greedy at temperature 0, else a seeded draw among the likeliest tokens.

    The same seed, tokens and logits give the same tokens on every machine. The limits apply in the order of
    transformers' logits processors: penalty, temperature, top_k, top_p, min_p.

    Args:
        temperature: >= 0; 0 takes the likeliest token.
        top_k: draw among the k likeliest tokens; None or 0 for all.
        top_p: draw among the likeliest tokens whose probabilities first reach p, in (0, 1].
        seed: of the draws.
        min_p: draw among tokens of at least min_p times the likeliest one's probability, in [0, 1].
        repetition_penalty: > 0; above 1 makes tokens that were accepted less likely.

    Raises:
        InvalidArgumentError: an argument is out of range.
    """

    def __init__(
        self,
        temperature: float = 0.0,
        top_k: int | None = None,
        top_p: float = 1.0,
        seed: int = 0,
        min_p: float = 0.0,
        repetition_penalty: float = 1.0,
    ) -> None:
        if top_k is not None and not 0 <= top_k < 2**32:
            raise InvalidArgumentError(f"top_k {top_k}: it must be 0 (all) or more, and below 2^32")
        if not 0 <= seed < 2**64:
            raise InvalidArgumentError(f"seed {seed}: it must be 0 or more, and below 2^64")
        self._core = _core.Sampler(temperature, top_k or 0, top_p, min_p, repetition_penalty, seed)

    def accept(self, tokens: Sequence[int]) -> None:
        """Tokens that the text has so far; the repetition penalty is theirs."""
        self._core.accept(np.asarray(tokens, np.uint32))

    def __call__(self, logits: npt.NDArray[np.float32]) -> int:
        """The next token of logits f32 [vocab]."""
        return self._core.sample(np.ascontiguousarray(logits, np.float32))

    def probabilities(self, logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """What the next token of logits f32 [vocab] is drawn from: f64 [vocab]."""
        return np.array(self._core.probabilities(np.ascontiguousarray(logits, np.float32)))
