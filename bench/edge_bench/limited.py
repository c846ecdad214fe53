"""Answers of a bundle in a process whose memory is limited: how fast, and how it ended where it could not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edge_bench.cgroup import MemoryGroup
from edge_bench.page_cache import drop
from edge_bench.remote import WorkerEndedError, open_worker
from edge_runtime.errors import EdgeRuntimeError

WARM_UP = 2  # requests
FEWEST = 8  # requests that count


@dataclass(frozen=True)
class Load:
    """What is asked. options: those of `Runtime.open`."""

    bundle: Path
    options: dict[str, Any]
    prompts: tuple[str, ...]
    answer_tokens: int
    memory: str  # fetched or none
    seconds: float  # that requests are asked for, at least


@dataclass(frozen=True)
class Trial:
    """requests_per_s: 0 where the process did not get through. outcome: "ok", or what became of it."""

    limit_bytes: int | None
    requests_per_s: float
    outcome: str
    peak_bytes: int | None  # charged to the group, the page cache of what it read included
    limit_hits: int | None
    resident_bytes: int | None  # of the process, when it had answered

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def bundle_files(bundle: Path) -> list[Path]:
    return sorted(path for path in bundle.rglob("*") if path.is_file())


def attempt(load: Load, limit: int | None, patience: float | None = None) -> Trial:
    """One process in one group. patience: seconds that opening and each reply may take.

    The bundle's files leave the page cache first, so that the group is charged for all of them that it reads.
    Raises UnsupportedError where no group can be made.
    """
    drop(bundle_files(load.bundle))
    with MemoryGroup.below_own(limit) as group:
        speed, outcome, resident = 0.0, "ok", None
        try:
            speed, resident = _answers(load, group, patience)
        except WorkerEndedError as error:
            outcome = "killed for want of memory" if group.figures()["oom_kills"] else str(error)
        except EdgeRuntimeError as error:
            outcome = str(error)
        figures = group.figures()
    return Trial(limit, speed, outcome, figures["peak_bytes"], figures["limit_hits"], resident)


def _answers(load: Load, group: MemoryGroup, patience: float | None) -> tuple[float, int]:
    """Requests a second, and bytes resident at the end."""
    worker, _ = open_worker(group, str(load.bundle), patience, **load.options)
    with worker:
        total, done = 0.0, 0
        while done < WARM_UP + FEWEST or total < load.seconds:
            taken = worker.ask(
                "answer",
                patience,
                prompt=load.prompts[done % len(load.prompts)],
                max_tokens=load.answer_tokens,
                memory=load.memory,
                cold=False,
            )
            done += 1
            if done > WARM_UP:
                total += taken["request_ms"] / 1e3
        return (done - WARM_UP) / total, int(worker.ask("resident", patience))


def best(trials: Sequence[Trial]) -> Trial:
    return max(trials, key=lambda trial: trial.requests_per_s)
