"""Pronounceable names from syllables."""

import numpy as np

_ONSETS = (
    "b", "d", "f", "g", "h", "j", "k", "l", "m", "n", "p", "r", "s", "t", "v", "w", "z", "br", "dr",
    "kr", "st", "tr",
)  # fmt: skip
_VOWELS = ["a", "e", "i", "o", "u", "ai", "ea", "ou"]
_CODAS = ["", "n", "r", "l", "s", "m", "t"]


def distinct_names(count: int, syllables: int, random: np.random.Generator) -> list[str]:
    """`count` different names."""
    found: dict[str, None] = {}
    while len(found) < count:
        parts = [str(random.choice(_ONSETS)) + str(random.choice(_VOWELS)) for _ in range(syllables)]
        name = "".join(parts) + str(random.choice(_CODAS))
        if len(name) >= 5:
            found[name.capitalize()] = None
    return list(found)
