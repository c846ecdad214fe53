import itertools
import re
from collections import Counter
from dataclasses import replace

import pytest

from edge_pretrain.corpus.common import common_texts
from edge_pretrain.corpus.documents import Corpus, DataConfig, build_corpus
from edge_pretrain.corpus.elements import elements
from edge_pretrain.corpus.entity import zipf_frequencies
from edge_pretrain.corpus.phrasings import HELD_OUT, TRAINING
from edge_pretrain.corpus.questions import END, build_questions, common_questions
from edge_pretrain.corpus.tail import tail_texts

CONFIG = DataConfig(
    seed=3,
    element_documents=600,
    people=40,
    people_documents=300,
    places=40,
    place_documents=300,
    common_documents=200,
    zipf=1.0,
    fact_floor=2,
)


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return build_corpus(CONFIG)


# number, name, symbol, standard atomic weight, period, group, year of discovery
KNOWN = [
    (1, "Hydrogen", "H", 1.008, 1, 1, 1766),
    (2, "Helium", "He", 4.0026, 1, 18, 1868),
    (26, "Iron", "Fe", 55.845, 4, 8, None),
    (37, "Rubidium", "Rb", 85.468, 5, 1, 1861),
    (47, "Silver", "Ag", 107.87, 5, 11, None),
    (57, "Lanthanum", "La", 138.91, 6, None, 1838),
    (74, "Tungsten", "W", 183.84, 6, 6, 1781),
    (79, "Gold", "Au", 196.97, 6, 11, None),
    (80, "Mercury", "Hg", 200.59, 6, 12, None),
    (92, "Uranium", "U", 238.03, 7, None, 1789),
    (118, "Oganesson", "Og", 294.0, 7, 18, 2002),
]


@pytest.mark.parametrize(("number", "name", "symbol", "mass", "period", "group", "year"), KNOWN)
def test_elements_have_their_well_known_values(number, name, symbol, mass, period, group, year):
    element = elements()[number - 1]
    assert (element.number, element.name, element.symbol) == (number, name, symbol)
    assert element.mass == pytest.approx(mass, rel=1e-3)
    assert (element.period, element.group) == (period, group)
    # Sources differ by a few years on what counts as the discovery.
    assert element.year == (None if year is None else pytest.approx(year, abs=3))


def test_the_table_is_complete_and_consistent():
    table = elements()
    assert [e.number for e in table] == list(range(1, 119))
    assert len({e.name for e in table}) == len({e.symbol for e in table}) == 118
    assert all(e.symbol[0].isupper() and 1 <= len(e.symbol) <= 2 for e in table)
    # A period ends with its noble gas.
    assert [e.number for e in table if e.group == 18] == [2, 10, 18, 36, 54, 86, 118]
    periods = [e.period for e in table]
    assert periods == sorted(periods)
    assert [periods.count(p) for p in range(1, 8)] == [2, 8, 8, 18, 18, 32, 32]
    # Heavier nuclei have more protons, but for the well-known inversions, which are small.
    assert all(b.mass > a.mass - 6 for a, b in itertools.pairwise(table))
    assert all(2 * e.number - 1 <= e.mass <= 2.7 * e.number for e in table if e.number > 1)


def test_held_out_wordings_are_never_trained_on(corpus: Corpus):
    texts = [d.text for d in corpus.documents]
    everything = "\n".join(texts)
    for question in build_questions(corpus):
        assert question.prompt not in everything
        assert f"{question.prompt} {question.answer}{END}" not in everything
    for fact, wordings in HELD_OUT.items():
        assert not set(wordings) & set(TRAINING[fact])
        assert all(w.endswith(f" {{a}}{END}") for w in wordings), "a question ends where its answer begins"
        assert all("{a}" in w for w in TRAINING[fact])


def test_every_fact_of_every_entity_is_written_about_at_least_floor_times(corpus: Corpus):
    for index, entity in enumerate(corpus.entities):
        texts = [d.text.removeprefix(entity.opening) for d in corpus.documents if d.entity == index]
        for fact, answer in entity.facts.items():
            stated = {w.format(x=entity.title, a=answer) for w in TRAINING[fact]}
            assert sum(text.strip() in stated for text in texts) >= CONFIG.fact_floor


def test_several_facts_of_an_entity_in_a_document_are_the_same_sentences(corpus: Corpus):
    def sentences(documents: Corpus) -> Counter[tuple[int, str]]:
        found: Counter[tuple[int, str]] = Counter()
        for document in documents.documents:
            opening = documents.entities[document.entity].opening if document.entity >= 0 else ""
            assert document.text.startswith(opening)
            found.update((document.entity, s) for s in document.text.removeprefix(opening).split(".") if s)
        return found

    joined = build_corpus(replace(CONFIG, facts_per_document=4))
    assert sentences(joined) == sentences(corpus)
    about = Counter(d.entity for d in corpus.documents)
    for entity, documents in Counter(d.entity for d in joined.documents).items():
        together = 1 if entity < 0 else min(4, len(corpus.entities[entity].facts))
        assert documents == -(-about[entity] // together)
    # No fact has a place of its own.
    helium = next(i for i, e in enumerate(joined.entities) if e.title == "Helium")
    texts = [
        d.text.removeprefix(joined.entities[helium].opening) for d in joined.documents if d.entity == helium
    ]
    places = {
        fact: {
            text[: text.index(said)].count(".")
            for text in texts
            for wording in TRAINING[fact]
            if (said := wording.format(x="Helium", a=answer)) in text
        }
        for fact, answer in joined.entities[helium].facts.items()
    }
    assert all(len(found) > 1 for found in places.values()), places


@pytest.mark.parametrize("facts", [1, 2])
def test_the_long_tail_is_about_things_that_nothing_else_is_about(corpus: Corpus, facts: int):
    config = replace(CONFIG, tail_documents=500, facts_per_document=facts)
    whole = build_corpus(config)
    without = Counter((d.entity, d.text) for d in build_corpus(replace(config, tail_documents=0)).documents)
    tail = list((Counter((d.entity, d.text) for d in whole.documents) - without).elements())
    assert len(tail) == 500 == len(whole.documents) - without.total()
    assert {entity for entity, _ in tail} == {-1}
    titles = [text.split(".")[0] for _, text in tail]
    assert len(set(titles)) == 500
    assert not set(titles) & {entity.title for entity in whole.entities}
    assert all(text.count(".") == 2 + facts for _, text in tail)
    assert not {q.entity for q in build_questions(whole)} & set(titles)


def test_a_title_that_is_taken_is_left_out_of_the_long_tail():
    free = tail_texts(50, 1, set(), seed=1)
    taken = {text.split(".")[0] for text in free[:10]}
    texts = tail_texts(50, 1, taken, seed=1)
    assert len(texts) == 50
    assert not taken & {text.split(".")[0] for text in texts}


def test_documents_and_questions_share_title_and_lead(corpus: Corpus):
    openings = {entity.title: entity.opening for entity in corpus.entities}
    for document in corpus.documents:
        if document.entity >= 0:
            assert document.text.startswith(corpus.entities[document.entity].opening + " ")
    for question in build_questions(corpus):
        assert question.prompt.startswith(openings[question.entity] + " ")
        assert not re.search(rf"\b{re.escape(question.answer)}$", question.prompt)


def test_leads_do_not_give_facts_away(corpus: Corpus):
    for entity in corpus.entities:
        for fact, answer in entity.facts.items():
            # Periods are single digits, and so are the first atomic numbers.
            if entity.kind == "element" and fact in ("atomic number", "atomic mass") and len(answer) == 1:
                continue
            words = re.findall(r"\w+", entity.lead.removeprefix(entity.title))
            assert answer not in words, f"{entity.title}: {fact}"


def test_frequencies_follow_zipf_and_buckets_follow_frequencies():
    found = zipf_frequencies(100, 5000, 1.0, 2, [0, 1])
    counts = sorted((f.documents for f in found), reverse=True)
    assert counts[0] == pytest.approx(2 * counts[1], rel=0.01) == pytest.approx(10 * counts[9], rel=0.01)
    assert min(counts) >= 2
    assert [sum(f.bucket == b for f in found) for b in range(5)] == [20] * 5
    by_bucket = [[f.documents for f in found if f.bucket == b] for b in range(5)]
    assert all(max(rare) <= min(frequent) for rare, frequent in itertools.pairwise(by_bucket))
    assert zipf_frequencies(100, 5000, 1.0, 2, [1, 1]) != found, "each seed makes other entities rare"


def test_the_corpus_depends_on_the_seed_only(corpus: Corpus):
    assert build_corpus(CONFIG) == corpus
    other = build_corpus(DataConfig(**{**CONFIG.to_json(), "seed": 4}))
    assert other.documents != corpus.documents


def test_held_out_common_texts_are_not_trained_on():
    trained = set(common_texts(CONFIG.common_documents, CONFIG.seed, held_out=False))
    pairs = common_questions(CONFIG, 50)
    assert len(set(pairs)) == 50
    assert not {f"{first} {rest}" for first, rest in pairs} & trained
