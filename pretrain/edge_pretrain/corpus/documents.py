"""The training documents: "Title. Lead sentence. Facts.", frequent entities often, rare ones a few times.

Document and question share the title and the lead, because memories help only where both are routed to the
same leaf: bare one-line facts are not (docs/experiments.md).
"""

from dataclasses import asdict, dataclass

import numpy as np

from edge_pretrain.corpus.common import common_texts
from edge_pretrain.corpus.elements import elements
from edge_pretrain.corpus.entity import Entity, Frequency, with_article, zipf_frequencies
from edge_pretrain.corpus.people import people
from edge_pretrain.corpus.phrasings import TRAINING
from edge_pretrain.corpus.places import places
from edge_pretrain.corpus.tail import tail_texts


@dataclass(frozen=True)
class DataConfig:
    """What the corpus is made of. Document counts are of one fact each and before the floor of `fact_floor` a fact;
    `facts_per_document` of them, of different facts of an entity, are then made one. `tail_documents` are whole ones,
    each about a thing that no other document and no question is about.
    """

    seed: int
    element_documents: int
    people: int
    people_documents: int
    places: int
    place_documents: int
    common_documents: int
    zipf: float
    fact_floor: int
    facts_per_document: int = 1
    tail_documents: int = 0

    def to_json(self) -> dict[str, int | float]:
        return asdict(self)


@dataclass(frozen=True)
class Document:
    """`entity` indexes the corpus's entities, -1 for common text and the long tail."""

    text: str
    entity: int


@dataclass(frozen=True)
class Corpus:
    """frequencies[i] belongs to entities[i]."""

    entities: list[Entity]
    frequencies: list[Frequency]
    documents: list[Document]


def element_entities() -> list[Entity]:
    """The elements as entities; `discovered` is left out where it is not known."""
    found = []
    for element in elements():
        category = with_article(element.category)
        lead = f"{element.name} is {category} in period {element.period} of the periodic table."
        facts = {
            "atomic number": str(element.number),
            "atomic mass": str(round(element.mass)),
            "symbol": element.symbol,
        }
        if element.year is not None:
            facts["discovered"] = str(element.year)
        found.append(Entity("element", element.name, lead, facts))
    return found


def build_corpus(config: DataConfig) -> Corpus:
    """All entities and the documents about them, and the common texts, in seeded order."""
    kinds = [
        (element_entities(), config.element_documents),
        (people(config.people, config.seed), config.people_documents),
        (places(config.places, config.seed), config.place_documents),
    ]
    entities: list[Entity] = []
    frequencies: list[Frequency] = []
    for stream, (members, documents) in enumerate(kinds):
        floor = config.fact_floor * max((len(entity.facts) for entity in members), default=0)
        entities += members
        frequencies += zipf_frequencies(
            len(members), documents, config.zipf, floor, [config.seed, 104, stream]
        )
    texts = [
        Document(text, index)
        for index, (entity, frequency) in enumerate(zip(entities, frequencies, strict=True))
        for text in fact_texts(
            entity, frequency.documents, config.facts_per_document, [config.seed, 105, index]
        )
    ]
    texts += [
        Document(text, -1) for text in common_texts(config.common_documents, config.seed, held_out=False)
    ]
    texts += [
        Document(text, -1)
        for text in tail_texts(
            config.tail_documents,
            config.facts_per_document,
            {entity.title for entity in entities},
            config.seed,
        )
    ]
    order = np.random.default_rng([config.seed, 106]).permutation(len(texts))
    return Corpus(entities, frequencies, [texts[i] for i in order])


def fact_texts(entity: Entity, count: int, together: int, seed: list[int]) -> list[str]:
    """`count` sentences that go round the entity's facts, each fact going round its wordings, by documents.

    together: facts in a document, or all of the entity's where it has fewer; each draws their order anew, so that no
    fact has a place of its own.
    """
    random = np.random.default_rng(seed)
    wordings = {fact: random.permutation(TRAINING[fact]) for fact in entity.facts}
    facts = list(entity.facts.items())
    sentences = []
    for i in range(count):
        fact, answer = facts[i % len(facts)]
        wording = wordings[fact][i // len(facts) % len(wordings[fact])]
        sentences.append(wording.format(x=entity.title, a=answer))
    size = min(together, len(facts))
    documents = (sentences[start : start + size] for start in range(0, count, size))
    return [" ".join([entity.opening, *(d[i] for i in random.permutation(len(d)))]) for d in documents]
