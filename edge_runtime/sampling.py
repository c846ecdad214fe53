"""Chooses the next token from logits."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edge_runtime.errors import InvalidArgumentError


class Sampler:
    """Greedy at temperature 0, else a seeded draw among the likeliest tokens.

    The same seed and logits give the same tokens.

    Args:
        temperature: >= 0; 0 takes the likeliest token.
        top_k: draw among the k likeliest tokens; None or 0 for all.
        top_p: draw among the likeliest tokens whose probabilities first reach p, in (0, 1].
        seed: of the draws.

    Raises:
        InvalidArgumentError: an argument is out of range.
    """

    def __init__(
        self, temperature: float = 0.0, top_k: int | None = None, top_p: float = 1.0, seed: int = 0
    ) -> None:
        if not (temperature >= 0 and np.isfinite(temperature)):
            raise InvalidArgumentError(f"temperature {temperature}: it must be 0 or more")
        if top_k is not None and top_k < 0:
            raise InvalidArgumentError(f"top_k {top_k}: it must be 0 (all) or more")
        if not 0 < top_p <= 1:
            raise InvalidArgumentError(f"top_p {top_p}: it must be above 0 and at most 1")
        if seed < 0:
            raise InvalidArgumentError(f"seed {seed}: it must be 0 or more")
        self._temperature, self._top_k, self._top_p = temperature, top_k or 0, top_p
        self._random = np.random.default_rng(seed)

    def __call__(self, logits: npt.NDArray[np.float32]) -> int:
        """The next token of logits f32 [vocab]."""
        if self._temperature == 0:
            return int(np.argmax(logits))
        order = np.argsort(-logits, kind="stable")
        if self._top_k:
            order = order[: self._top_k]
        scaled = (logits[order].astype(np.float64) - float(logits[order[0]])) / self._temperature
        probabilities = np.exp(scaled)
        probabilities /= probabilities.sum()
        if self._top_p < 1:
            # The token that crosses the threshold stays in.
            keep = int(np.searchsorted(np.cumsum(probabilities), self._top_p)) + 1
            order, probabilities = order[:keep], probabilities[:keep] / probabilities[:keep].sum()
        return int(self._random.choice(order, p=probabilities))
