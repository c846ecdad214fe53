"""The long tail: texts about things that are written about once, as most things in a real corpus are.

Nothing asks about them. What they do to an anchor: facts that are seen once cost it much of its room for those that are
seen again (Allen-Zhu and Li 2024, "Physics of Language Models: Part 3.3", section 10, where they are called junk).
"""

from collections.abc import Set
from dataclasses import dataclass

import numpy as np

from edge_pretrain.corpus.names import distinct_names
from edge_pretrain.corpus.people import COUNTRIES

_Fact = tuple[tuple[int, int], tuple[str, ...]]  # the range of its value [low, high), its wordings

_YEARS = (1850, 2000)
_CONSTELLATIONS = (
    "Lyra", "Orion", "Cygnus", "Draco", "Perseus", "Aquila", "Taurus", "Gemini", "Hydra", "Lupus", "Pavo", "Vela",
)  # fmt: skip


@dataclass(frozen=True)
class _Kind:
    """`lead` speaks of {x}, one of `sorts` {sort} and one of `places` {place}."""

    lead: str
    sorts: tuple[str, ...]
    places: tuple[str, ...]
    facts: tuple[_Fact, ...]


_KINDS = (
    _Kind(
        "{x} is a {sort} built in {place}.",
        (
            "grain carrier",
            "car ferry",
            "sailing yacht",
            "river steamer",
            "oil tanker",
            "whaling ship",
            "tugboat",
        ),
        COUNTRIES,
        (
            ((900, 90000), ("The ship has a tonnage of {a}.", "{x} carries {a} tons.")),
            (_YEARS, ("{x} was launched in {a}.", "The launch came in {a}.")),
            ((30, 300), ("From bow to stern it is {a} metres.", "The hull of {x} is {a} metres long.")),
        ),
    ),
    _Kind(
        "{x} is a {sort} set in {place}.",
        (
            "ghost story",
            "crime novel",
            "book of fables",
            "love story",
            "spy thriller",
            "family saga",
            "comedy",
        ),
        COUNTRIES,
        (
            ((90, 900), ("The book has {a} pages.", "{x} fills {a} pages.")),
            (_YEARS, ("{x} was published in {a}.", "The first edition is of {a}.")),
            ((5, 80), ("It is told in {a} chapters.", "{x} ends with chapter {a}.")),
        ),
    ),
    _Kind(
        "{x} is a maker of {sort} in {place}.",
        ("shoes", "clocks", "tractors", "paper", "soap", "bicycles", "glass", "chocolate", "furniture"),
        COUNTRIES,
        (
            ((10, 9000), ("The company has {a} workers.", "{x} employs {a} people.")),
            (_YEARS, ("{x} went into business in {a}.", "Its first factory opened in {a}.")),
            ((2, 400), ("{x} holds {a} patents.", "The firm owns {a} patents.")),
        ),
    ),
    _Kind(
        "{x} is a {sort} in the constellation {place}.",
        (
            "red giant",
            "white dwarf",
            "double star",
            "spiral galaxy",
            "planetary nebula",
            "open cluster",
            "pulsar",
        ),
        _CONSTELLATIONS,
        (
            ((100, 9999), ("It is {a} light years away.", "The light of {x} takes {a} years.")),
            (_YEARS, ("{x} was catalogued in {a}.", "Its first photograph is of {a}.")),
            ((1000, 99999), ("{x} has the catalogue number {a}.", "Star charts list it as {a}.")),
        ),
    ),
    _Kind(
        "{x} is a {sort} in {place}.",
        ("stone bridge", "railway bridge", "canal lock", "road tunnel", "dam", "aqueduct", "cable car"),
        COUNTRIES,
        (
            ((20, 3000), ("It is {a} metres long.", "{x} has a length of {a} metres.")),
            (_YEARS, ("{x} was opened in {a}.", "Work on it ended in {a}.")),
            ((40, 9000), ("{x} cost {a} thousand pounds.", "It took {a} workers to build {x}.")),
        ),
    ),
    _Kind(
        "{x} is a {sort} trained in {place}.",
        ("grey mare", "black stallion", "bay gelding", "chestnut colt", "white filly", "spotted pony"),
        COUNTRIES,
        (
            ((1, 90), ("The horse has won {a} races.", "{x} came first {a} times.")),
            (_YEARS, ("{x} was foaled in {a}.", "Its first race was in {a}.")),
            ((300, 9000), ("{x} was sold for {a} guineas.", "Its last owner paid {a} guineas.")),
        ),
    ),
)


def tail_texts(count: int, facts: int, titles: Set[str], seed: int) -> list[str]:
    """`count` texts, each about a thing of its own that has none of `titles`.

    facts: how many of its three facts a text gives, all where that is more.
    """
    drawn = distinct_names(count + len(titles), 3, np.random.default_rng([seed, 108, 0]))
    random = np.random.default_rng([seed, 108, 1])
    texts = []
    for name in [name for name in drawn if name not in titles][:count]:
        kind = _KINDS[random.integers(len(_KINDS))]
        sort, place = (values[random.integers(len(values))] for values in (kind.sorts, kind.places))
        sentences = [f"{name}. {kind.lead.format(x=name, sort=sort, place=place)}"]
        for at in random.permutation(len(kind.facts))[:facts]:
            (low, high), wordings = kind.facts[at]
            wording = wordings[random.integers(len(wordings))]
            sentences.append(wording.format(x=name, a=random.integers(low, high)))
        texts.append(" ".join(sentences))
    return texts
