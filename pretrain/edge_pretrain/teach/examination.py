"""Questions before and after, answered by the bundles' own programs."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge_runtime.cli.evaluate import is_right
from edge_runtime.errors import BadFormatError
from edge_runtime.lines import text_lines
from edge_runtime.runtime import Runtime


@dataclass(frozen=True)
class Asked:
    prompt: str
    answer: str


def read_asked(path: Path, limit: int | None = None, seed: int = 0) -> list[Asked]:
    """The questions of a file, one JSON object a line with `prompt` and `answer`; of many, `limit` drawn by `seed`."""
    found = []
    for number, line in text_lines(path, "questions, a JSON object a line with prompt and answer"):
        try:
            record = json.loads(line)
            found.append(Asked(str(record["prompt"]), str(record["answer"])))
        except (ValueError, KeyError, TypeError):
            raise BadFormatError(f"{path}: line {number} has no prompt and answer") from None
    if not found:
        raise BadFormatError(f"{path}: it has no questions")
    if limit is not None and limit < len(found):
        found = [found[i] for i in sorted(np.random.default_rng(seed).permutation(len(found))[:limit])]
    return found


def right_share(bundle: Path, questions: list[Asked], threads: int) -> float:
    """Percent of greedy answers that are right, with fetched memory."""
    with Runtime.open(bundle, threads=threads).session() as session:
        right = [
            is_right("".join(session.generate(one.prompt, memory="fetched", temperature=0)), one.answer)
            for one in questions
        ]
    return 100 * sum(right) / len(right)
