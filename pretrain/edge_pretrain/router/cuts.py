"""Prompt-like cuts of documents: what a prompt about a document may share with it."""

import re
from collections.abc import Sequence

import numpy as np

SHORTEST, LONGEST = 3, 24  # words of a window
KEEP_CASE = 0.5  # the share of cuts that stay as they are written; people type prompts without
_NO_WORD = re.compile(r"[^\w\s']")


def cuts(documents: Sequence[str], count: int, seed: int) -> list[str]:
    """About `count` different cuts, going round the documents.

    In turn a beginning, which ends where a prompt would stop, and a window from anywhere; half of them in lower
    case without punctuation.
    """
    random = np.random.default_rng([seed, 301])
    found: dict[str, None] = {}
    for turn in range(count):
        words = documents[turn % len(documents)].split()
        if len(words) <= SHORTEST:
            continue
        if turn // len(documents) % 2 == 0:
            chosen = words[: random.integers(SHORTEST, len(words))]
        else:
            length = int(random.integers(SHORTEST, min(LONGEST, len(words)) + 1))
            start = int(random.integers(len(words) - length + 1))
            chosen = words[start : start + length]
        text = " ".join(chosen)
        if random.random() >= KEEP_CASE:
            text = _NO_WORD.sub("", text.lower())
        if text.strip():
            found[text] = None
    return list(found)
