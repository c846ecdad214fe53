"""Requests to a bundle: cold, warm, and as a session meets them; what each one cost."""

from __future__ import annotations

import csv
import random
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edge_bench.remote import Remote

PHASES = ("none", "cold", "warm", "session")
COLUMNS = (
    "engine", "phase", "request", "prompt", "memory", "path", "prompt_tokens", "generated_tokens", "route_ms",
    "fetch_ms", "stall_ms", "hidden_ms", "ttft_ms", "request_ms", "decode_tokens_per_s", "bytes_read",
    "bank_resident_bytes", "resident_bytes", "resident_anonymous_bytes", "resident_file_bytes", "cached_bytes",
)  # fmt: skip


def trace(
    worker: Remote, engine: str, prompts: Sequence[str], requests: int, max_tokens: int, fetchable: bool
) -> list[dict[str, Any]]:
    """Every request, in order. fetchable: the bundle has a bank and a router; else only answers without memory.

    none: without memory. cold: nothing in the pager's memory or the page cache. warm: the same prompt again. session:
    prompts drawn at random, each finding what the ones before it left.
    """
    rows: list[dict[str, Any]] = []

    def ask(phase: str, prompt: int, cold: bool = False) -> None:
        memory = "none" if phase == "none" else "fetched"
        found = worker.ask("answer", prompt=prompts[prompt], max_tokens=max_tokens, memory=memory, cold=cold)
        rows.append({"engine": engine, "phase": phase, "request": len(rows), "prompt": prompt, **found})

    ask("none", 0)
    rows.clear()  # the first answer of a process is not like the others
    for prompt in range(len(prompts)):
        ask("none", prompt)
        if fetchable:
            ask("cold", prompt, cold=True)
            ask("warm", prompt)
    order = random.Random(0)
    for _ in range(requests if fetchable else 0):
        ask("session", order.randrange(len(prompts)))
    return rows


def summarise(rows: Sequence[dict[str, Any]], fetch_alone_ms: Sequence[float]) -> dict[str, Any]:
    """Of one engine's trace. fetch_alone_ms: of cold fetches with nothing else going on."""
    phases = {phase: [row for row in rows if row["phase"] == phase] for phase in PHASES}
    fetched = [row for row in rows if row["memory"] != "none"]
    record: dict[str, Any] = {
        "ttft_ms": {phase: spread(row["ttft_ms"] for row in found) for phase, found in phases.items()},
        "request_ms": {phase: spread(row["request_ms"] for row in found) for phase, found in phases.items()},
        "route_ms": spread(row["route_ms"] for row in fetched),
        "fetch_alone_ms": spread(fetch_alone_ms),
    }
    for phase in ("cold", "warm", "session"):
        found = phases[phase]
        record[phase] = {
            key: spread(row[key] for row in found) for key in ("fetch_ms", "stall_ms", "bytes_read")
        }
    record["levels"] = levels(phases["session"])
    return record


def spread(values: Iterable[float | None]) -> dict[str, float] | None:
    """None where there are none."""
    known = [value for value in values if value is not None]
    if not known:
        return None
    p50, p95 = np.percentile(known, (50, 95))
    return {"p50": round(float(p50), 4), "p95": round(float(p95), 4), "max": round(max(known), 4)}


def levels(rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """By level: how many of the blocks that the requests asked for were there, and bytes read a request."""
    found: dict[str, dict[str, Any]] = {}
    for level in sorted({level for row in rows for level in row["levels"]}, key=int):
        total = {key: sum(row["levels"][level][key] for row in rows) for key in ("hits", "misses", "bytes")}
        asked = total["hits"] + total["misses"]
        if asked:
            rate = round(total["hits"] / asked, 4)
            found[level] = total | {"hit_rate": rate, "bytes_a_request": round(total["bytes"] / len(rows))}
    return found


def write_trace(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """A line a request: COLUMNS, then hits and misses by level."""
    names = sorted({level for row in rows for level in row["levels"]}, key=int)
    head = [*COLUMNS, *(f"level{level}_{key}" for level in names for key in ("hits", "misses"))]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, head, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        for row in rows:
            counts = {
                f"level{level}_{key}": row["levels"].get(level, {}).get(key, 0)
                for level in names
                for key in ("hits", "misses")
            }
            writer.writerow(row | {"path": ">".join(map(str, row["path"]))} | counts)
