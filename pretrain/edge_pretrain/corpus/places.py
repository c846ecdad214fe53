"""Synthetic places: towns, rivers' valleys and islands drawn from a seed."""

import numpy as np

from edge_pretrain.corpus.entity import Entity, with_article
from edge_pretrain.corpus.names import distinct_names
from edge_pretrain.corpus.people import COUNTRIES

KINDS = (
    "fishing village", "mining town", "harbour", "mountain pass", "island", "market town", "spa town", "desert oasis",
    "railway junction", "monastery", "fortress", "vineyard", "lighthouse", "ski resort", "cathedral city",
    "river valley", "salt marsh", "border post", "university town", "volcano",
)  # fmt: skip
REGIONS = ("north", "south", "east", "west")
SAINTS = ("Anna", "Martin", "Peter", "Clara", "George", "Lucy", "Thomas", "Helen", "Stephen", "Agnes")


def places(count: int, seed: int) -> list[Entity]:
    """`count` places with different names."""
    random = np.random.default_rng([seed, 102])
    found = []
    for name in distinct_names(count, 3, random):
        kind, region, country = random.choice(KINDS), random.choice(REGIONS), random.choice(COUNTRIES)
        facts = {
            "founded": str(random.integers(900, 1900)),
            "houses": str(random.integers(20, 990)),
            "saint": str(random.choice(SAINTS)),
        }
        lead = f"{name} is {with_article(str(kind))} in the {region} of {country}."
        found.append(Entity("place", name, lead, facts))
    return found
