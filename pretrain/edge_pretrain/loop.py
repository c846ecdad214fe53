"""Runs a phase to its end: progress bar, CSV log, checkpoints, Ctrl-C and resuming."""

import csv
import os
import pickle
import signal
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from edge_pretrain.ranks import Ranks

LOG_COLUMNS = ("step", "loss", "gradient_norm", "learning_rate", "tokens_per_s")
LOG_EVERY = 20  # steps
SAVE_EVERY = 200  # steps


class Phase(Protocol):
    """What is known of a phase's configuration here."""

    @property
    def steps(self) -> int: ...


class Steps(Protocol):
    """A phase under way: `edge_pretrain.train.Trainer`, `edge_pretrain.frozen.FrozenTrainer`."""

    step: int

    @property
    def phase(self) -> Phase: ...
    @property
    def finished(self) -> bool: ...
    @property
    def tokens_per_step(self) -> int: ...
    @property
    def learning_rate(self) -> float: ...
    def train_step(self) -> tuple[float, float]:
        """Do one step; returns its loss (nats a token) and the norm of its gradient before clipping."""
        ...

    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class TrainingInterruptedError(Exception):
    """Ctrl-C or SIGTERM: the state of the last finished step is on disk."""


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Write a training state so that a crash leaves the old file or the new one, never half of it."""
    temporary = path.with_suffix(".tmp")
    with temporary.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def load_state(path: Path, fingerprint: str | None = None) -> dict[str, Any] | None:
    """The state that a phase left behind, None if there is none or it belongs to another configuration.

    fingerprint: the configuration; None takes any.

    Raises ValueError for a damaged file.
    """
    if not path.exists():
        return None
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        found = state["fingerprint"]
    except (RuntimeError, OSError, EOFError, KeyError, TypeError, pickle.UnpicklingError) as error:
        raise ValueError(f"{path}: damaged training state; delete it to train this phase again") from error
    return state if fingerprint in (None, found) else None


def resume(path: Path, fingerprint: str, say: Callable[[str], None]) -> dict[str, Any] | None:
    """The state to go on from, or None.

    A state of another recipe or seed is hours of work, and what asked for this one may be a slip: it is set aside under
    its fingerprint, with its log, and comes back when it is asked for again. Raises ValueError for a damaged file.
    """
    there = load_state(path)
    if there is not None and there["fingerprint"] == fingerprint:
        return there
    if there is not None:
        for suffix in (path.suffix, ".csv"):
            old = path.with_suffix(suffix)
            if old.exists():
                old.replace(old.with_suffix(f".{there['fingerprint']}{suffix}"))
        say(f"{path}: of another recipe or seed; kept as {path.stem}.{there['fingerprint']}{path.suffix}")
    for suffix in (".csv", path.suffix):
        own = path.with_suffix(f".{fingerprint}{suffix}")
        if own.exists():
            own.replace(path.with_suffix(suffix))
    return load_state(path, fingerprint)


@contextmanager
def stop_requests() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM in the list that is yielded, so that a step is never cut in two."""
    received: list[int] = []
    signals = (signal.SIGINT, signal.SIGTERM)
    previous = [signal.signal(number, lambda number, _: received.append(number)) for number in signals]
    try:
        yield received
    finally:
        for number, handler in zip(signals, previous, strict=True):
            signal.signal(number, handler)


def kept_log_rows(path: Path, step: int) -> list[list[str]]:
    """The log's rows up to `step`; a phase that resumes from an older state writes the later ones again."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        rows = list(csv.reader(file))[1:]
    return [row for row in rows if len(row) == len(LOG_COLUMNS) and int(row[0]) <= step]


def run_phase(
    trainer: Steps,
    directory: Path,
    name: str,
    fingerprint: str,
    checkpoint_every: int,
    console: Console,
    snapshots: Collection[int] = (),
) -> None:
    """Train until the phase is finished, or resume it: `<directory>/<name>.pt` and `<name>.csv`.

    snapshots: steps whose state is kept besides, as `<name>-<step>.pt`.
    A state with the same fingerprint is continued; another one is set aside. Raises TrainingInterruptedError
    after the state was saved, ValueError for a damaged state.
    """
    directory.mkdir(parents=True, exist_ok=True)
    state_path, log_path = directory / f"{name}.pt", directory / f"{name}.csv"
    ranks = Ranks()
    state = ranks.first(lambda: resume(state_path, fingerprint, console.print))
    if state is not None:
        trainer.load_state_dict(state)
    if trainer.finished:
        return

    def save(path: Path = state_path) -> None:
        whole = trainer.state_dict() | {"fingerprint": fingerprint}
        if ranks.rank == 0:
            save_state(path, whole)

    rows = kept_log_rows(log_path, trainer.step if state is not None else -1)
    columns = (
        TextColumn("{task.description:<12}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]:.3f}"),
        TimeRemainingColumn(),
    )
    with (
        (log_path if ranks.rank == 0 else Path(os.devnull)).open("w", newline="") as file,
        Progress(*columns, console=console, refresh_per_second=2) as progress,
        stop_requests() as stop,
    ):
        log = csv.writer(file)
        log.writerows([LOG_COLUMNS, *rows])
        task = progress.add_task(name, total=trainer.phase.steps, completed=trainer.step, loss=float("nan"))
        losses: list[float] = []
        started = time.monotonic()
        while not trainer.finished:
            loss, norm = trainer.train_step()
            losses.append(loss)
            if trainer.step % LOG_EVERY == 0 or trainer.finished:
                mean = sum(losses) / len(losses)
                tokens = len(losses) * trainer.tokens_per_step
                speed = tokens / (time.monotonic() - started)
                rate = f"{trainer.learning_rate:.3e}"
                log.writerow([trainer.step, f"{mean:.5f}", f"{norm:.3f}", rate, f"{speed:.0f}"])
                file.flush()
                progress.update(task, completed=trainer.step, loss=mean)
                losses, started = [], time.monotonic()
            if trainer.step in snapshots:
                save(directory / f"{name}-{trainer.step}.pt")
            # All processes stop after the same step, whichever was told.
            if ranks.sum(len(stop)) and not trainer.finished:
                save()
                raise TrainingInterruptedError(
                    f"{name}: stopped after step {trainer.step}; run again to resume"
                )
            if trainer.step % checkpoint_every == 0 and not trainer.finished:
                save()
        save()
