"""What routing policies cost and gain: single questions, and conversations that change their topic.

    python -m edge_bench.routing answers BUNDLE QUESTIONS.jsonl --budget 1MB   # room for the blocks of several paths
    python -m edge_bench.routing conversations BUNDLE QUESTIONS.jsonl

Questions are those that `edge-runtime pretrain` writes, of the kinds that --kinds names: nothing should be chosen by
the elements, which results are reported on.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track
from rich.table import Table

from edge_bench.command import guarded
from edge_runtime.cli.evaluate import Question, is_right, read_questions
from edge_runtime.cli.main import Parser
from edge_runtime.routing import RoutingPolicy
from edge_runtime.runtime import Runtime
from edge_runtime.session import Session

ANSWERS = {
    "best path": RoutingPolicy(),
    "two best paths": RoutingPolicy(top_paths=2),
    "three best paths": RoutingPolicy(top_paths=3),
    **{f"min_margin {m}": RoutingPolicy(min_margin=m) for m in (0.01, 0.02, 0.05, 0.1)},
}
CONVERSATIONS = {
    "prompt": RoutingPolicy(when="prompt"),
    "turn": RoutingPolicy(),
    **{f"turn, hysteresis {h}": RoutingPolicy(hysteresis=h) for h in (0.05, 0.1, 0.2, 0.4)},
    **{f"tokens, every {n}": RoutingPolicy(when="tokens", every=n) for n in (2, 8)},
    "tokens, every 2, hysteresis 0.2": RoutingPolicy(when="tokens", every=2, hysteresis=0.2),
}


@dataclass(frozen=True)
class Turn:
    """`opening`: it introduces its topic; otherwise it asks on, and its words alone do not say what about."""

    message: str
    answer: str
    opening: bool


def conversations(questions: Sequence[Question], count: int, topics: int, seed: int) -> list[list[Turn]]:
    """`count` conversations about so many entities each: a question in full, then one that only asks on."""
    drawn = random.Random(seed)
    by_entity: dict[str, list[Question]] = {}
    for question in questions:
        by_entity.setdefault(question.entity, []).append(question)
    entities = sorted(name for name, asked in by_entity.items() if len({q.fact for q in asked}) > 1)
    found = []
    for _ in range(count):
        turns = []
        for entity in drawn.sample(entities, topics):
            first = drawn.choice(by_entity[entity])
            second = drawn.choice([q for q in by_entity[entity] if q.fact != first.fact])
            # After the title and the lead sentence comes the question itself.
            bare = second.prompt.split(". ", 2)[-1]
            turns += [Turn(first.prompt, first.answer, True), Turn(bare, second.answer, False)]
        found.append(turns)
    return found


@dataclass
class Tally:
    right: int = 0
    asked: int = 0

    def add(self, right: bool) -> None:
        self.right, self.asked = self.right + right, self.asked + 1

    @property
    def share(self) -> float:
        return self.right / self.asked if self.asked else 0.0


def answered(session: Session, question: Question) -> bool:
    text = "".join(session.generate(question.prompt, temperature=0))
    return is_right(text, question.answer)


def answers(runtime: Runtime, questions: Sequence[Question], console: Console) -> list[dict[str, Any]]:
    """Each question by itself, under each policy."""
    rows = []
    for name, policy in ANSWERS.items():
        tally, read, generic, levels = Tally(), [], 0, []
        with runtime.session(policy) as session:
            for question in track(questions, name, console=console, transient=True):
                tally.add(answered(session, question))
                read.append(session.stats.bytes_read)
                generic += session.stats.memory == "generic"
                levels.append(len(session.stats.path))
        rows.append(
            {
                "policy": name,
                "routing": asdict(policy),
                "right": tally.share,
                "generic": generic / len(questions),
                "levels": statistics.mean(levels),
                "bytes_read": statistics.mean(read),
            }
        )
    return rows


def talks(runtime: Runtime, all_turns: Sequence[list[Turn]], console: Console) -> list[dict[str, Any]]:
    """Each conversation in one KV cache, under each policy."""
    rows = []
    for name, policy in CONVERSATIONS.items():
        opening, following = Tally(), Tally()
        read, routes, switches, route_ms = 0, 0, 0, 0.0
        with runtime.session(policy) as session:
            for turns in track(all_turns, name, console=console, transient=True):
                session.reset()
                for turn in turns:
                    text = "".join(session.chat(turn.message, temperature=0))
                    (opening if turn.opening else following).add(is_right(text, turn.answer))
                    stats = session.stats
                    read, routes = read + stats.bytes_read, routes + stats.routes
                    switches, route_ms = switches + stats.switches, route_ms + stats.route_ms
        turns_said = opening.asked + following.asked
        rows.append(
            {
                "policy": name,
                "routing": asdict(policy),
                "opening_right": opening.share,
                "following_right": following.share,
                "bytes_read_a_turn": read / turns_said,
                "routes_a_turn": routes / turns_said,
                "switches_a_turn": switches / turns_said,
                "route_us_a_turn": 1e3 * route_ms / turns_said,
            }
        )
    return rows


def _table(rows: Sequence[dict[str, Any]]) -> Table:
    keys = [key for key in rows[0] if key != "routing"]
    table = Table(*(key.replace("_", " ") for key in keys))
    for row in rows:
        cells = [row[key] for key in keys[1:]]
        shares = [
            f"{value:.1%}" if key.endswith("right") or key == "generic" else f"{value:,.2f}"
            for key, value in zip(keys[1:], cells, strict=True)
        ]
        table.add_row(row["policy"], *shares)
    return table


def run(arguments: argparse.Namespace) -> int:
    kinds = set(arguments.kinds.split(","))
    questions = [q for q in read_questions(arguments.questions, None) if q.kind in kinds]
    questions = random.Random(arguments.seed).sample(questions, min(arguments.count, len(questions)))
    runtime = Runtime.open(arguments.bundle, arguments.budget, threads=1, router=arguments.router)
    console = Console(stderr=True)
    if arguments.what == "answers":
        rows = answers(runtime, questions, console)
    else:
        everything = [q for q in read_questions(arguments.questions, None) if q.kind in kinds]
        made = conversations(everything, arguments.count, arguments.topics, arguments.seed)
        rows = talks(runtime, made, console)
    if arguments.json:
        print(json.dumps({"router": arguments.router, "count": arguments.count, "rows": rows}))
    else:
        Console(highlight=False, soft_wrap=True).print(_table(rows))
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    parser = Parser(prog="python -m edge_bench.routing", description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("answers", "conversations"))
    parser.add_argument("bundle", type=Path, metavar="BUNDLE")
    parser.add_argument("questions", type=Path, metavar="QUESTIONS.jsonl")
    parser.add_argument(
        "--router", metavar="NAME", help="which of the bundle's routers (default: its default)"
    )
    parser.add_argument("--budget", metavar="SIZE", help="for bank bytes (default: room for two fetches)")
    parser.add_argument("--kinds", default="person,place", help="of the questions (default: person,place)")
    parser.add_argument("--count", type=int, default=300, help="questions or conversations (default: 300)")
    parser.add_argument("--topics", type=int, default=2, help="of a conversation (default: 2)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    return guarded(parser, run, arguments)


if __name__ == "__main__":
    sys.exit(main())
