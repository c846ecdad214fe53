"""A bundle's programs against what the torch reference said when it was exported."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from edge_runtime.bundle import Bundle
from edge_runtime.engines import Engine, open_engine
from edge_runtime.errors import BadFormatError, EdgeRuntimeError, UnsupportedError
from edge_runtime.manifest import ProgramSpec
from edge_runtime.pager import Pager
from edge_runtime.runtime import default_budget


@dataclass(frozen=True)
class Agreement:
    """One program with one memory. agreement: how often its likeliest token is the reference's.

    reason: None, or why it could not be run; then there are no figures.
    """

    engine: str
    flavour: str
    dtype: str
    memory: str
    max_logit_error: float | None
    agreement: float | None
    reason: str | None


def compare(
    bundle: Bundle, threads: int, opener: Callable[[Bundle, int, str], Engine] = open_engine
) -> Iterator[Agreement]:
    """Runs every program on the bundle's reference tokens: a prefill, and then token by token.

    opener: as `open_engine`.

    Raises:
        UnsupportedError: the bundle has no reference.
        BadFormatError: it is damaged.
    """
    if bundle.manifest.reference is None:
        raise UnsupportedError(f"{bundle.directory}: it has no reference to compare with: export it again")
    reference = _read(bundle, bundle.path_of(bundle.manifest.reference))
    tokens, modes = reference["tokens"], sorted(_modes(reference))
    for program in bundle.manifest.programs:
        try:
            engine = opener(bundle, threads, f"{program.engine}/{program.flavour}")
        except EdgeRuntimeError as error:
            yield from (_row(program, mode, reason=str(error)) for mode in modes)
            continue
        for mode in modes:
            wanted = reference[f"logits.{mode}"]
            try:
                found = _run(bundle, engine, tokens, reference[f"nodes.{mode}"], len(wanted))
            except EdgeRuntimeError as error:
                yield _row(program, mode, reason=str(error))
                continue
            alike = float((found.argmax(1) == wanted.argmax(1)).mean())
            yield _row(program, mode, float(np.abs(found - wanted).max()), alike)


def _modes(reference: dict[str, Any]) -> list[str]:
    return [name.removeprefix("logits.") for name in reference if name.startswith("logits.")]


def _read(bundle: Bundle, path: Path) -> dict[str, Any]:
    """The tensors of docs/bundle-format.md, reference.safetensors. Raises BadFormatError."""
    vocabulary = bundle.manifest.anchor.vocab_size
    try:
        with safe_open(path, framework="numpy") as file:
            found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a mapping
        tokens, modes = found["tokens"], _modes(found)
        good = (
            bool(modes)
            and tokens.ndim == 1
            and bool(((tokens >= 0) & (tokens < vocabulary)).all())
            and all(
                found[f"nodes.{mode}"].shape[1:] == (2,)
                and found[f"logits.{mode}"].shape[1:] == (vocabulary,)
                and 0 < len(found[f"logits.{mode}"]) <= len(tokens)
                for mode in modes
            )
        )
    except (SafetensorError, KeyError) as error:
        raise BadFormatError(f"{path}: damaged ({error}): copy the bundle again") from None
    if not good:
        raise BadFormatError(f"{path}: damaged (it does not fit the anchor): copy the bundle again")
    return found


def _run(bundle: Bundle, engine: Engine, tokens: Any, nodes: Any, steps: int) -> Any:
    """Logits f32 [steps, vocab_size] of the last tokens."""
    context, memory = engine.new_context(), bundle.manifest.memory
    lease = None
    if memory is not None and len(nodes):
        pager = Pager(
            bundle.level_paths, default_budget(memory), blocked=bundle.blocked, removed=bundle.removed
        )
        lease = pager.fetch([(int(level), int(node)) for level, node in nodes])
    with lease or nullcontext():
        handle = lease.handle if lease else 0
        first = len(tokens) - steps + 1
        logits = [context.forward(tokens[:first], handle)]
        logits += [context.forward(tokens[at : at + 1], handle) for at in range(first, len(tokens))]
    return np.stack(logits)


def _row(
    program: ProgramSpec,
    memory: str,
    error: float | None = None,
    agreement: float | None = None,
    reason: str | None = None,
) -> Agreement:
    return Agreement(program.engine, program.flavour, program.dtype, memory, error, agreement, reason)
