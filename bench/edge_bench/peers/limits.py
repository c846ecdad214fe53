"""Under how little memory each still decodes at half its speed: llama.cpp, whose weights are mapped, and our engine.

    python -m edge_bench.peers.limits

Each is decoded in a control group whose limit falls, by bisection; its files leave the page cache before each trial, so
that the group is charged for what it reads of them.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from edge_bench import machine as where
from edge_bench.bench_verb.verb import count
from edge_bench.cgroup import MemoryGroup
from edge_bench.command import guarded, say, tell
from edge_bench.footprint.search import Search, search
from edge_bench.limited import Trial, bundle_files
from edge_bench.page_cache import drop
from edge_bench.peers.contenders import Contender, Plan, all_contenders
from edge_bench.remote import Remote, WorkerEndedError
from edge_bench.report import table
from edge_runtime.cli.main import Parser
from edge_runtime.errors import EdgeRuntimeError

PROGRAM, SCHEMA = "edge_bench.peers.limits", 1
PEERS = ("llama.cpp", "native")
FRACTION = 0.5
PATIENCE = 15.0  # seconds for opening and for each reply: whatever takes longer is too slow at any fraction
TOKENS, SECONDS = 8, 0.4  # of a measurement, and at least
HOPELESS = FRACTION / 4  # of the speed without a limit: a trial that begins slower ends there
TOLERANCE = 0.02


class Attempts:
    """Of one contender: its tokens a second, each time in a process and a group of its own."""

    def __init__(self, one: Contender, memory: str) -> None:
        self._one, self._memory, self._fastest = one, memory, 0.0

    def __call__(self, limit: int | None) -> Trial:
        """Raises UnsupportedError where no group can be made."""
        least = 0.0 if limit is None else HOPELESS * self._fastest
        trial = _attempt(self._one, self._memory, limit, least)
        if limit is None:
            self._fastest = max(self._fastest, trial.requests_per_s)
        return trial


def _attempt(one: Contender, memory: str, limit: int | None, least: float) -> Trial:
    bundle = one.options.get("bundle")
    drop(bundle_files(Path(bundle)) if bundle else [one.program])
    with MemoryGroup.below_own(limit) as group, Remote(group, one.subject) as worker:
        speed, outcome, resident = 0.0, "ok", None
        try:
            worker.ask("open", PATIENCE, **one.options)
            ask = partial(worker.ask, "speed", PATIENCE, tokens=TOKENS, decode=True, memory=memory)
            ask()
            taken = [ask()]
            if TOKENS / taken[0] < least:
                raise EdgeRuntimeError(f"{TOKENS / taken[0]:.1f} tokens/s")
            while sum(taken) < SECONDS:
                taken.append(ask())
            speed, resident = len(taken) * TOKENS / sum(taken), int(worker.ask("peak", PATIENCE))
        except WorkerEndedError as error:
            outcome = "killed for want of memory" if group.figures()["oom_kills"] else str(error)
        except EdgeRuntimeError as error:
            outcome = str(error)
        figures = group.figures()
        worker.__exit__()
    return Trial(limit, speed, outcome, figures["peak_bytes"], figures["limit_hits"], resident)


def measured(plan: Plan) -> list[tuple[str, Contender, str]]:
    """Name, contender and memory, at 4 bits."""
    found = []
    for one in all_contenders(plan)[0]:
        if one.bits == 4 and one.peer == "llama.cpp":
            found.append((one.name, one, "none"))
            mapped = replace(one, options=one.options | {"repack": False})
            found.append((f"{one.name}, rows not repacked", mapped, "none"))
        elif one.bits == 4:
            found += [(one.name, one, "none"), (f"{one.name} with memory", one, "fetched")]
    return found


def _row(name: str, one: Contender, memory: str, found: Search) -> dict[str, Any]:
    def trial(tried: Trial) -> dict[str, Any]:
        taken = tried.to_json()
        return {"tokens_per_s": round(taken.pop("requests_per_s"), 2)} | taken

    return {
        "name": name,
        "version": one.version,
        "model": one.model,
        "memory": memory,
        "program_bytes": one.program.stat().st_size,
        "smallest": trial(found.smallest),
        "unrestricted": trial(found.unrestricted),
        "trials": [trial(tried) for tried in found.trials],
    }


def measure(plan: Plan, command: str) -> dict[str, Any]:
    turns = measured(plan)
    with MemoryGroup.below_own(None):
        pass  # refuses here, before anything is measured
    started, load = time.time(), where.load()
    rows = []
    for name, one, memory in turns:
        plan.say(name)
        found = search(Attempts(one, memory), FRACTION, plan.say, (), "tokens/s", TOLERANCE)
        rows.append(_row(name, one, memory, found))
    return {
        "schema": SCHEMA,
        "tool": PROGRAM,
        "threads": plan.threads,
        "fraction": FRACTION,
        "context_length": next(iter(turns))[1].options.get("context_length"),
        "rows": rows,
        **where.provenance(plan.directory, load, started, command),
    }


def markdown(record: dict[str, Any]) -> str:
    head = (
        "runtime", "version", "model", "weights MB", "tokens/s", "charged MB", "smallest limit MB", "tokens/s there",
    )  # fmt: skip
    body = []
    for row in record["rows"]:
        free, smallest = row["unrestricted"], row["smallest"]
        sizes = [size / 1e6 for size in (row["program_bytes"], free["peak_bytes"], smallest["limit_bytes"])]
        body.append(
            (
                row["name"],
                row["version"],
                row["model"],
                f"{sizes[0]:,.0f}",
                f"{free['tokens_per_s']:,.1f}",
                f"{sizes[1]:,.1f}",
                f"**{sizes[2]:,.1f}**",
                f"{smallest['tokens_per_s']:,.1f}",
            )
        )
    load, machine = record["load_average"], record["machine"]
    return "\n\n".join(
        [
            f"The smallest limit at which each decodes at {record['fraction']:.0%} of its own speed without one, to "
            f"{TOLERANCE:.0%}. Charged: to its group at most, without a limit; its mapped files are in it.",
            table(head, body),
            f"`{record['command']}`, revision {record['revision']}, {record['seconds']:.0f} s; {machine['cpu']}, "
            f"{machine['cores']} cores, {record['threads']} threads; load {load['before'][0]} before, "
            f"{load['after'][0]} after.",
        ]
    )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = Parser(
        prog=PROGRAM, description="The smallest memory limit that llama.cpp and our engine decode in."
    )
    parser.add_argument("--model", default="160M", help="whose dimensions (default: 160M)")
    parser.add_argument("--only", choices=PEERS, help="one of them (default: both)")
    parser.add_argument("-t", "--threads", type=count, default=2, metavar="N", help="(default: 2)")
    parser.add_argument(
        "--directory", type=Path, default=Path("runs/peers"), help="of the inputs (default: runs/peers)"
    )
    parser.add_argument("--json", action="store_true", help="print the record instead of the table")
    parser.add_argument("--save", type=Path, metavar="FILE", help="write the record there, too")
    typed = where.command(PROGRAM, arguments)

    def run(parsed: argparse.Namespace) -> int:
        plan = Plan(
            model=parsed.model,
            peers=(parsed.only,) if parsed.only else PEERS,
            named=True,
            quick=True,
            threads=parsed.threads,
            repetitions=1,
            decode_tokens=TOKENS,
            directory=parsed.directory.resolve(),
            say=lambda text: say(PROGRAM, text),
        )
        record = measure(plan, typed)
        tell(record, parsed.json, parsed.save, lambda found: markdown(found) + "\n")
        return 0

    return guarded(parser, run, arguments)


if __name__ == "__main__":
    sys.exit(main())
