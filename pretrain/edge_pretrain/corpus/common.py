"""Common knowledge: everyday sentences whose facts are frequent, so that the anchor itself should hold them."""

import numpy as np

# subject, kind, food or use, home or place, what it does
_ANIMALS = """\
cow|grass|barn|gives milk
horse|hay|stable|pulls carts
dog|meat|kennel|guards the house
cat|fish|basket|catches mice
hen|grain|coop|lays eggs
bee|nectar|hive|makes honey
sheep|grass|meadow|grows wool
goat|leaves|hill|climbs rocks
owl|mice|tree|hunts at night
bear|berries|cave|sleeps in winter
rabbit|carrots|burrow|runs fast
duck|weeds|pond|swims well
spider|flies|web|spins silk
camel|thorns|desert|carries loads
squirrel|nuts|tree|hides its food
frog|insects|pond|jumps far
whale|krill|ocean|dives deep
ant|crumbs|hill|works all day"""
_TOOLS = """\
hammer|drive nails|carpenter|toolbox
saw|cut wood|carpenter|workshop
needle|sew cloth|tailor|drawer
spade|dig holes|gardener|shed
knife|slice bread|cook|kitchen
brush|paint walls|painter|bucket
broom|sweep floors|cleaner|cupboard
ladder|reach the roof|builder|garage
kettle|boil water|cook|stove
pen|write letters|clerk|desk
net|catch fish|fisherman|boat
oven|bake bread|baker|bakery
scissors|cut paper|teacher|classroom
lamp|light the room|reader|table
umbrella|keep off the rain|walker|hall
clock|tell the time|traveller|wall"""
_OPENINGS = (
    "On the farm",
    "In the story",
    "Near the river",
    "Far from town",
    "As everybody knows",
    "In the morning",
)
_TIMES = (
    "every day",
    "in summer",
    "before sunset",
    "at noon",
    "all year",
    "after breakfast",
    "on Sundays",
    "in spring",
)
_SIZES = ("small", "young", "old", "quiet", "strong", "friendly", "brown", "grey")


def common_texts(count: int, seed: int, held_out: bool) -> list[str]:
    """`count` texts of three or four sentences; held-out texts are drawn from another stream of the seed."""
    random = np.random.default_rng([seed, 103, int(held_out)])
    animals = [line.split("|") for line in _ANIMALS.splitlines()]
    tools = [line.split("|") for line in _TOOLS.splitlines()]

    def pick(items: tuple[str, ...]) -> str:
        return items[random.integers(len(items))]

    texts = []
    for _ in range(count):
        if random.random() < 0.5:
            name, food, home, habit = animals[random.integers(len(animals))]
            sentences = [
                f"{pick(_OPENINGS)} a {pick(_SIZES)} {name} lives in the {home}.",
                f"The {name} eats {food} {pick(_TIMES)}.",
                f"The {name} {habit} {pick(_TIMES)}.",
                f"Its home is the {home}.",
            ]
        else:
            name, use, owner, place = tools[random.integers(len(tools))]
            sentences = [
                f"{pick(_OPENINGS)} the {owner} uses the {name} to {use}.",
                f"The {owner} keeps the {name} in the {place}.",
                f"With the {name} it is easy to {use} {pick(_TIMES)}.",
                f"The {pick(_SIZES)} {owner} looks for the {name} in the {place}.",
            ]
        rest = [sentences[i] for i in random.permutation([1, 2, 3])[: random.integers(2, 4)]]
        texts.append(" ".join([sentences[0], *rest]))
    return texts
