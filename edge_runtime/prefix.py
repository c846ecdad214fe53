"""A KV cache that knows what it holds, so that a prompt that begins like the one before is not computed twice."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from edge_runtime.engines import Context
from edge_runtime.pager import Node

MemoryKey = tuple[int, tuple[Node, ...]]
"""(bank revision, nodes read): what keys and values were made with beside their tokens."""
Logits = npt.NDArray[np.float32]


class PrefixCache:
    """A context, and each token in it with the memory that was read for it. Not thread-safe."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._tokens: list[int] = []
        self._memory: list[MemoryKey] = []

    @property
    def position(self) -> int:
        """Tokens in the KV cache."""
        return len(self._tokens)

    @property
    def context_length(self) -> int:
        return self._context.context_length

    def reset(self) -> None:
        """Empties the KV cache."""
        self._rewind(0)

    def prefill(
        self, conversation: Sequence[int], prompt: Sequence[int], handle: int, memory: MemoryKey
    ) -> tuple[Logits, int]:
        """Makes the cache hold the conversation and then the prompt: the logits behind them, and how many of the
        prompt's tokens it held already, made with this memory. The conversation may have been made with any.

        Errors are those of `Context.forward`; the cache holds no more than the conversation and what of the prompt
        it held then.
        """
        start = _alike(self._tokens, conversation)
        held = 0
        if start == len(conversation) and self._context.cut_is_free:
            held = self._held(start, prompt, memory)
        self._rewind(start + held)
        rest = [*conversation, *prompt][start + held :]
        return self.append(rest, handle, memory), held

    def append(self, tokens: Sequence[int], handle: int, memory: MemoryKey) -> Logits:
        """As `Context.forward`; `memory` says what the handle reads."""
        logits = self._context.forward(np.array(tokens, np.int64), handle)
        self._tokens += tokens
        self._memory += [memory] * len(tokens)
        return logits

    def _held(self, start: int, prompt: Sequence[int], memory: MemoryKey) -> int:
        """One token at least is left to be computed: its logits are wanted."""
        count = _alike(self._tokens[start:], prompt[:-1])
        made_with = self._memory[start : start + count]
        return next((i for i, one in enumerate(made_with) if one != memory), count)

    def _rewind(self, position: int) -> None:
        self._context.rewind(position)
        del self._tokens[position:], self._memory[position:]


def _alike(one: Sequence[int], other: Sequence[int]) -> int:
    """The length of the beginning that both share."""
    pairs = zip(one, other, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))
