"""Pages that no anchor has seen, with questions: people and places of the demo's corpus, invented by another seed.

python -m edge_pretrain.teach.pages -o pages --seed 1 --pages 20
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edge_pretrain.corpus.documents import Corpus, Document
from edge_pretrain.corpus.entity import Entity, Frequency
from edge_pretrain.corpus.people import people
from edge_pretrain.corpus.phrasings import TRAINING
from edge_pretrain.corpus.places import places
from edge_pretrain.corpus.questions import build_questions

SEED = 900_000  # far from the seeds of recipes


def write_pages(out: Path, pages: int, entities: int, wordings: int, seed: int) -> None:
    """`pages` text files of `entities` entities each, every fact in `wordings` wordings; questions in wordings of
    their own beside the folder, in `<out>.questions.jsonl`."""
    count = pages * entities
    invented = [*people(-(-count // 2), SEED + seed), *places(count // 2, SEED + seed)]
    order = np.random.default_rng([SEED, seed]).permutation(count)
    invented = [invented[i] for i in order]
    out.mkdir(parents=True)
    for page in range(pages):
        members = invented[page * entities : (page + 1) * entities]
        text = "\n\n".join(_section(one, wordings, [SEED, seed, page, i]) for i, one in enumerate(members))
        (out / f"page{page + 1:02}.txt").write_text(text + "\n", encoding="utf-8")
    corpus = Corpus(invented, [Frequency(wordings, 0)] * count, list[Document]())
    lines = [json.dumps(question.to_json()) + "\n" for question in build_questions(corpus)]
    out.with_name(out.name + ".questions.jsonl").write_text("".join(lines), encoding="utf-8")


def _section(entity: Entity, wordings: int, seed: list[int]) -> str:
    random = np.random.default_rng(seed)
    facts = [
        wording.format(x=entity.title, a=answer)
        for fact, answer in entity.facts.items()
        for wording in random.permutation(TRAINING[fact])[:wordings]
    ]
    return "\n".join([entity.title, entity.lead, *(facts[i] for i in random.permutation(len(facts)))])


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m edge_pretrain.teach.pages")
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--pages", type=int, default=20)
    parser.add_argument("--entities", type=int, default=2, help="of each page")
    parser.add_argument("--wordings", type=int, default=4, help="of each fact")
    given = parser.parse_args(arguments)
    try:
        write_pages(given.out, given.pages, given.entities, given.wordings, given.seed)
    except OSError as error:
        print(
            f"{error.filename or given.out}: {error.strerror}: name another folder with -o", file=sys.stderr
        )
        return 1
    print(f"wrote {given.out} and {given.out}.questions.jsonl")
    return 0


if __name__ == "__main__":
    sys.exit(main())
