"""An entity of the corpus, and the frequencies with which entities are written about."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

Kind = Literal["element", "person", "place"]
BUCKETS = 5


@dataclass(frozen=True)
class Entity:
    """`lead`: the sentence that opens each of its documents. `facts`: the name of a fact -> its value."""

    kind: Kind
    title: str
    lead: str
    facts: dict[str, str]

    @property
    def opening(self) -> str:
        """What documents and questions share, so that both are routed alike: the title and the lead."""
        return f"{self.title}. {self.lead}"


def with_article(noun: str) -> str:
    """The noun with its indefinite article."""
    return f"{'an' if noun[0] in 'aeiou' and not noun.startswith('uni') else 'a'} {noun}"


@dataclass(frozen=True)
class Frequency:
    """`documents` of an entity; `bucket` 0 is the rarest fifth of its kind, 4 the most frequent."""

    documents: int
    bucket: int


def zipf_frequencies(
    entities: int, documents: int, exponent: float, floor: int, seed: list[int]
) -> list[Frequency]:
    """Zipf's law over a seeded permutation: rank n gets a share of n^-exponent, and at least `floor`."""
    ranks = np.random.default_rng(seed).permutation(entities)
    weights = (ranks + 1.0) ** -exponent
    counts = np.maximum(floor, np.rint(documents * weights / weights.sum())).astype(int)
    buckets = BUCKETS - 1 - ranks * BUCKETS // entities
    return [Frequency(int(n), int(bucket)) for n, bucket in zip(counts, buckets, strict=True)]
