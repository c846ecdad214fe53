"""Held-out questions: wordings that no training document has, opened by the entity's title and lead."""

from dataclasses import asdict, dataclass

from edge_pretrain.corpus.common import common_texts
from edge_pretrain.corpus.documents import Corpus, DataConfig
from edge_pretrain.corpus.phrasings import HELD_OUT

END = "."  # stops a generated answer


@dataclass(frozen=True)
class Question:
    """A prompt and the answer that should follow it after a space, up to `END`.

    bucket: 0 the rarest fifth of its kind, 4 the most frequent; 4 for common text.
    """

    prompt: str
    answer: str
    entity: str
    fact: str
    kind: str
    bucket: int
    rare: bool

    def to_json(self) -> dict[str, str | int | bool]:
        return asdict(self)


def build_questions(corpus: Corpus) -> list[Question]:
    """Every fact of every entity in every held-out wording."""
    found = []
    for entity, frequency in zip(corpus.entities, corpus.frequencies, strict=True):
        for fact, answer in entity.facts.items():
            for wording in HELD_OUT[fact]:
                stem = wording.removesuffix(f" {{a}}{END}").format(x=entity.title)
                prompt = f"{entity.opening} {stem}"
                bucket = frequency.bucket
                found.append(
                    Question(prompt, answer, entity.title, fact, entity.kind, bucket, rare=bucket == 0)
                )
    return found


def common_questions(config: DataConfig, count: int) -> list[tuple[str, str]]:
    """Held-out common texts as (first sentence, the rest): the first is routed, the rest is scored."""
    seen = set(common_texts(config.common_documents, config.seed, held_out=False))
    pairs: dict[tuple[str, str], None] = {}
    for text in common_texts(4 * count, config.seed, held_out=True):
        first, rest = text.split(". ", 1)
        if text not in seen:
            pairs[first + ".", rest] = None
    return list(pairs)[:count]
