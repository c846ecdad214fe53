"""Synthetic people: names, trades and lives drawn from a seed."""

import numpy as np

from edge_pretrain.corpus.entity import Entity, with_article
from edge_pretrain.corpus.names import distinct_names

FIRST_NAMES = (
    "Ada", "Boris", "Carla", "David", "Edith", "Felix", "Greta", "Hugo", "Irene", "Jacob", "Karin",
    "Leon", "Maria", "Nils", "Olga", "Pablo", "Rosa", "Simon", "Tessa", "Victor", "Wanda", "Xavier",
    "Yusuf", "Zoe", "Amir", "Bella", "Carlos", "Daria", "Emil", "Fatima", "Gustav", "Hanna", "Ivan",
    "Julia", "Kenji", "Laura", "Marco", "Nadia", "Oscar", "Paula", "Ravi", "Sofia", "Tomas", "Ursula",
    "Walter", "Yara",
)  # fmt: skip
TRADES = (
    "painter", "surgeon", "sailor", "botanist", "violinist", "baker", "judge", "geologist", "poet", "pilot",
    "tailor", "astronomer", "carpenter", "chess player", "beekeeper", "sculptor", "swimmer", "translator",
    "printer", "dancer", "fisherman", "historian", "watchmaker", "gardener", "weaver", "economist", "cyclist",
    "blacksmith", "photographer", "veterinarian", "mathematician", "cook", "organist", "glassblower", "diver",
    "librarian", "archer", "physicist", "shepherd", "architect",
)  # fmt: skip
COUNTRIES = (
    "Norway", "Portugal", "Chile", "Kenya", "Japan", "Canada", "Poland", "Egypt", "Peru", "India", "Ireland",
    "Greece", "Vietnam", "Mexico", "Turkey", "Finland", "Brazil", "Ghana", "Nepal", "Cuba",
)  # fmt: skip
PASTIMES = (
    "collects old maps", "keeps two parrots", "grows orchids", "repairs bicycles", "studies comets", "paints birds",
    "builds kites", "breeds horses", "bakes rye bread", "writes crime novels", "climbs glaciers", "restores chairs",
    "tames falcons", "sails a red boat", "hunts for fossils", "brews ginger beer", "knits sweaters", "trains dogs",
    "carves wooden spoons", "plants apple trees", "swims in lakes", "draws comic strips", "keeps goldfish",
    "makes candles", "solves crosswords", "polishes gemstones", "counts butterflies", "rides a camel",
    "gathers mushrooms", "folds paper cranes",
)  # fmt: skip
INSTRUMENTS = ("flute", "drum", "harp", "piano", "guitar", "trumpet", "cello", "banjo", "organ", "lute")


def people(count: int, seed: int) -> list[Entity]:
    """`count` people with different names."""
    random = np.random.default_rng([seed, 101])
    found = []
    for last in distinct_names(count, 2, random):
        name = f"{random.choice(FIRST_NAMES)} {last}"
        trade, country = str(random.choice(TRADES)), random.choice(COUNTRIES)
        lead = f"{name} is {with_article(trade)} from {country} who {random.choice(PASTIMES)}."
        facts = {
            "born": str(random.integers(1700, 1990)),
            "height": str(random.integers(140, 210)),
            "instrument": str(random.choice(INSTRUMENTS)),
        }
        found.append(Entity("person", name, lead, facts))
    return found
