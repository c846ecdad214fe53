"""What changing memory, or an adapter, costs the next token."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypedDict

import numpy as np

from edge_bench.page_cache import cached_bytes, drop, warm, whole
from edge_runtime.errors import EdgeRuntimeError

STATES = ("cold", "preloaded", "resident")
"""Of what is swapped in: nowhere in memory; in the page cache; wherever the runtime keeps it ready for use."""
TOKENS = 9
COLD = 0.05  # of the bytes may be in the page cache
TABLES = 2**20  # bytes that may be, too: the level files' tables, which a pager maps


class Swap(TypedDict):
    call_ms: float  # of the calls that swap
    delay_ms: (
        float  # with the first token after them, less what a token takes later: who loads lazily pays here
    )


def prepare(state: str, files: Sequence[Path]) -> None:
    """Has the page cache hold the files or forget them. EdgeRuntimeError where it keeps some: somebody maps them."""
    if state != "cold":
        warm(files)
        return
    drop(files)
    left, size = cached_bytes(whole(files)), sum(file.stat().st_size for file in files)
    if left > COLD * size + TABLES:
        raise EdgeRuntimeError(
            f"{files[0]}: {left / size:.0%} stay in the page cache: another process maps it"
        )


def swap_loaded(
    state: str,
    old: str,
    new: str,
    held: dict[str, Any],
    load: Callable[[str], Any],
    token: Callable[[Any, int], object],
) -> Swap:
    """From what was loaded out of the file `old` to what is loaded out of `new`; what is loaded stays in `held`.

    token: of something loaded, at a position. resident: both are loaded before.
    """

    def loaded(file: str) -> Any:
        if file not in held:
            held[file] = load(file)
        return held[file]

    used, position = loaded(old), -1
    if state == "resident":
        loaded(new)
    else:
        held.pop(new, None)
        prepare(state, [Path(new)])

    def use() -> None:
        nonlocal used
        used = loaded(new)

    def next_token() -> None:
        nonlocal position
        position += 1
        token(used, position)

    return timed_swap(use, next_token)


def timed_swap(swap: Callable[[], None], token: Callable[[], object]) -> Swap:
    """REQUIRES that something else of the same kind is in use, and that the context has room for TOKENS + 1 tokens."""
    token()
    start = time.perf_counter()
    swap()
    swapped = time.perf_counter()
    token()
    first = time.perf_counter()
    later = []
    for _ in range(TOKENS):
        begun = time.perf_counter()
        token()
        later.append(time.perf_counter() - begun)
    call = swapped - start
    return {"call_ms": 1e3 * call, "delay_ms": 1e3 * max(call, first - start - float(np.median(later)))}
