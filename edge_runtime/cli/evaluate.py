"""`edge-runtime evaluate`: questions answered without memory and with generic, fetched and blocked memory."""

from __future__ import annotations

import argparse
import json
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, get_type_hints

from rich.console import Console
from rich.markup import escape
from rich.progress import track
from rich.table import Table

from edge_runtime.cli.options import add_runtime_options, megabytes, milliseconds, open_runtime
from edge_runtime.cli.verb import Verb
from edge_runtime.errors import BadFormatError, InvalidArgumentError
from edge_runtime.leasing import MemoryMode
from edge_runtime.lines import text_lines
from edge_runtime.pager import Node
from edge_runtime.runtime import Runtime
from edge_runtime.session import Session
from edge_runtime.stats import GenerationStats

KINDS = {str: "text", int: "a whole number", bool: "true or false"}
MODES = ("none", "generic", "fetched", "blocked")


@dataclass(frozen=True)
class Question:
    """A line of the questions file. `bucket`: 0 the rarest fifth of its kind, 4 the most frequent."""

    prompt: str
    answer: str
    entity: str
    fact: str
    kind: str
    bucket: int
    rare: bool


@dataclass(frozen=True)
class Answer:
    text: str
    right: bool


@dataclass(frozen=True)
class Outcome:
    question: Question
    answers: dict[str, Answer]
    stats: GenerationStats  # of the fetched answer


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_runtime_options(parser)
    parser.add_argument(
        "questions",
        type=Path,
        metavar="QUESTIONS.jsonl",
        help="one JSON object a line: prompt, answer, entity, fact, kind, bucket, rare",
    )
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N questions")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def read_questions(path: Path, limit: int | None) -> list[Question]:
    """The first `limit` questions of a file. NotFoundError; BadFormatError names the line."""
    if limit is not None and limit < 1:
        raise InvalidArgumentError(f"--limit {limit}: it must be 1 or more")
    lines = text_lines(path, "the questions.jsonl that `edge-runtime pretrain` writes into its checkpoint")
    questions: list[Question] = []
    for number, line in lines[:limit]:
        try:
            record = json.loads(line)
        except ValueError:
            record = None
        if wrong := _wrong(record):
            raise BadFormatError(f"{path}: line {number} is not a question: {wrong}")
        questions.append(Question(**{field.name: record[field.name] for field in fields(Question)}))
    if not questions:
        raise BadFormatError(f"{path}: it has no questions")
    return questions


def _wrong(record: object) -> str | None:
    """What keeps a line from being a question."""
    if not isinstance(record, dict):
        return "not a JSON object"
    kinds = get_type_hints(Question)
    for name, kind in kinds.items():
        if name not in record:
            return f"it lacks {name!r}"
        if type(record[name]) is not kind:
            return f"{name!r} must be {KINDS[kind]}"
    return None


def is_right(text: str, answer: str) -> bool:
    """Whether a text begins with the answer as a whole word."""
    found = text.strip()
    return found.startswith(answer) and not found[len(answer) : len(answer) + 1].isalnum()


def ask(session: Session, question: Question) -> Outcome:
    """All four answers. "blocked" shuts the level-1 node of the question's own path."""
    answers: dict[str, Answer] = {}

    def generate(name: str, memory: MemoryMode, blocked: Sequence[Node] = ()) -> GenerationStats:
        text = "".join(session.generate(question.prompt, memory=memory, blocked=blocked, temperature=0))
        answers[name] = Answer(text.strip(), is_right(text, question.answer))
        return session.stats

    generate("none", "none")
    generate("generic", "generic")
    fetched = generate("fetched", "fetched")
    generate("blocked", "fetched", [(1, node) for node in fetched.path[:1]])
    return Outcome(question, answers, fetched)


def groups_of(outcomes: Sequence[Outcome]) -> dict[str, list[Outcome]]:
    """The outcomes by kind and frequency, then all of them."""
    groups: dict[str, list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        part = "rarest fifth" if outcome.question.rare else "others"
        groups[f"{outcome.question.kind}, {part}"].append(outcome)
    return dict(sorted(groups.items())) | {"all": list(outcomes)}


def accuracy(outcomes: Iterable[Outcome], mode: str) -> float:
    return statistics.mean(outcome.answers[mode].right for outcome in outcomes)


def _median(outcomes: Sequence[Outcome], value: Callable[[GenerationStats], float | None]) -> float | None:
    values = [found for outcome in outcomes if (found := value(outcome.stats)) is not None]
    return statistics.median(values) if values else None


def summary(runtime: Runtime, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Accuracies by group, and what the fetched answers cost: medians over the questions."""
    last = outcomes[-1].stats
    return {
        "accuracy": {
            group: {"questions": len(members)} | {mode: accuracy(members, mode) for mode in MODES}
            for group, members in groups_of(outcomes).items()
        },
        "bytes_read": _median(outcomes, lambda stats: stats.bytes_read),
        "fetch_ms": _median(outcomes, lambda stats: stats.fetch_ms),
        "route_ms": _median(outcomes, lambda stats: stats.route_ms),
        "ttft_ms": _median(outcomes, lambda stats: stats.ttft_ms),
        "decode_tokens_per_s": _median(outcomes, lambda stats: stats.decode_tokens_per_s),
        "resident_bytes": last.resident_bytes,
        **asdict(runtime.footprint),
        "bank_peak_bytes": 0 if runtime.pager is None else runtime.pager.stats()["peak_bytes"],
    }


def _questions_table(outcomes: Sequence[Outcome]) -> Table:
    table = Table("question", "tree path", "answer", *MODES, title="held-out questions")
    for outcome in outcomes:
        question = outcome.question
        marks = [
            f"[{'green' if answer.right else 'red'}]{escape(answer.text)} {'✓' if answer.right else '✗'}[/]"
            for answer in (outcome.answers[mode] for mode in MODES)
        ]
        kind = "rare" if question.rare else "frequent" if question.bucket == 4 else "common"
        path = " > ".join(map(str, outcome.stats.path))
        text = f"{escape(question.prompt.rsplit('. ', 1)[-1])} … [dim]({escape(question.entity)}, {kind})[/]"
        table.add_row(text, path, escape(question.answer), *marks)
    return table


def _accuracy_table(outcomes: Sequence[Outcome]) -> Table:
    table = Table("right answers", "questions", *MODES)
    for group, members in groups_of(outcomes).items():
        table.add_row(escape(group), str(len(members)), *(f"{accuracy(members, mode):.0%}" for mode in MODES))
    return table


def _cost_lines(found: dict[str, Any]) -> list[str]:
    speed = found["decode_tokens_per_s"]
    return [
        f"a fetched answer (median): {found['bytes_read']:,.0f} bytes read in {milliseconds(found['fetch_ms'])}, "
        f"routed in {milliseconds(found['route_ms'])}, first token after {milliseconds(found['ttft_ms'])}, "
        f"then {'-' if speed is None else f'{speed:,.0f}'} tok/s",
        f"bank: {megabytes(found['bank_bytes'])} on disk, at most {megabytes(found['bank_peak_bytes'])} in memory "
        f"under a budget of {megabytes(found['budget_bytes'])}",
        f"process: {megabytes(found['resident_bytes'])} resident, of which the engine with nothing opened "
        f"{megabytes(found['engine_constant_bytes'])}; KV cache {megabytes(found['kv_bytes'])}, "
        f"program {megabytes(found['weights_bytes'])}",
    ]


def run(arguments: argparse.Namespace) -> int:
    questions = read_questions(arguments.questions, arguments.limit)
    runtime = open_runtime(arguments)
    with runtime.session() as session:
        console = Console(stderr=True)
        progress = track(
            questions, "answering", console=console, transient=True, disable=not console.is_terminal
        )
        outcomes = [ask(session, question) for question in progress]
    found = summary(runtime, outcomes)
    if arguments.json:
        answers = [
            asdict(outcome.question)
            | {"path": outcome.stats.path, "answers": {k: asdict(v) for k, v in outcome.answers.items()}}
            for outcome in outcomes
        ]
        print(json.dumps(found | {"questions": answers}))
        return 0
    console = Console(highlight=False, soft_wrap=False)
    console.print(_questions_table(outcomes))
    console.print(_accuracy_table(outcomes))
    for line in _cost_lines(found):
        console.print(line, soft_wrap=True)
    return 0


VERB = Verb("evaluate", "Answers questions with and without memory, as a table.", add_arguments, run)
