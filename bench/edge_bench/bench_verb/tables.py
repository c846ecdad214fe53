"""The record of `edge-runtime bench` as markdown, CSV and JSON lines."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from typing import Any

from edge_bench.report import table

FIELDS = (
    "model", "size", "parameters", "engine", "dtype", "threads", "memory", "test", "n_prompt", "n_gen", "avg_ts",
    "stddev_ts", "median_ts", "repetitions", "over_none",
)  # fmt: skip


def full_rows(record: dict[str, Any]) -> list[dict[str, Any]]:
    """The tests, each with what it was measured on."""
    engines, bundle = record["engines"], record["bundle"]
    return [
        {
            "model": bundle["name"],
            "size": engines[row["engine"]]["program_bytes"],
            "parameters": bundle["parameters"],
            "dtype": engines[row["engine"]]["dtype"],
            "threads": record["threads"],
            **row,
        }
        for row in record["tests"]
    ]


def as_csv(record: dict[str, Any]) -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, FIELDS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(full_rows(record))
    return out.getvalue()


def as_jsonl(record: dict[str, Any]) -> str:
    return "".join(json.dumps(row) + "\n" for row in full_rows(record))


def megabytes(value: float | None) -> str:
    return "-" if value is None else f"{value / 1e6:,.2f}"


def p50_p95(value: dict[str, float] | None, digits: int = 2) -> str:
    return "-" if value is None else f"{value['p50']:,.{digits}f} / {value['p95']:,.{digits}f}"


def speed_table(record: dict[str, Any]) -> str:
    head = ("model", "size", "params", "engine", "threads", "memory", "test", "t/s", "over none")
    body = [
        (
            f"{row['model']} {row['dtype']}",
            f"{row['size'] / 2**20:,.2f} MiB",
            parameters(row["parameters"]),
            row["engine"],
            row["threads"],
            row["memory"],
            row["test"],
            f"{row['avg_ts']:,.2f} ± {row['stddev_ts']:.2f}",
            "-" if row["over_none"] is None else f"{row['over_none']:.3f}",
        )
        for row in full_rows(record)
    ]
    return table(head, body)


def parameters(count: int) -> str:
    unit, name = (1e9, "B") if count >= 1e9 else (1e6, "M")
    return f"{count / unit:,.2f} {name}"


def request_table(record: dict[str, Any]) -> str:
    """Milliseconds, median / p95."""
    names = list(record["engines"])
    found = [record["engines"][name]["requests"] for name in names]
    lines: list[Sequence[object]] = [
        ("route", *(p50_p95(one["route_ms"], 3) for one in found)),
        ("cold fetch, alone", *(p50_p95(one["fetch_alone_ms"]) for one in found)),
    ]
    for phase in ("cold", "warm", "session"):
        lines += [
            (f"fetch, {phase}", *(p50_p95(one[phase]["fetch_ms"], 3) for one in found)),
            (f"stall, {phase}", *(p50_p95(one[phase]["stall_ms"], 3) for one in found)),
        ]
    for phase, text in (("none", "memory off"), ("cold", "cold"), ("warm", "warm"), ("session", "session")):
        lines.append((f"first token, {text}", *(p50_p95(one["ttft_ms"][phase]) for one in found)))
    return table(("ms, median / p95", *names), lines)


def level_table(record: dict[str, Any]) -> str:
    """Of the first engine: routes and blocks are the same whichever answers."""
    levels = next(iter(record["engines"].values()))["requests"]["levels"]
    body = [
        (level, one["hits"] + one["misses"], f"{one['hit_rate']:.0%}", f"{one['bytes_a_request'] / 1e6:,.3f}")
        for level, one in levels.items()
    ]
    return table(("level", "blocks asked for", "hits", "MB read a request"), body)


def memory_table(record: dict[str, Any]) -> str:
    head = ("engine", "when", "resident MB", "anonymous", "dirty", "clean mapped", "charged MB", "VmHWM MB")
    body: list[Sequence[object]] = []
    keys = ("resident", "anonymous", "dirty", "clean", "charged")
    for name, one in record["engines"].items():
        memory, opened = one["memory"], one["opened"]
        peak = max(memory["peak"], opened["peak"], key=lambda at: at["charged_bytes"])
        looks = (("before opening", opened["before"], None), ("steady", memory["steady"], None))
        for when, at, high in (*looks, ("peak", peak, memory["peak_resident_bytes"])):
            body.append((name, when, *(megabytes(at[f"{key}_bytes"]) for key in keys), megabytes(high)))
    return table(head, body)


def markdown(record: dict[str, Any]) -> str:
    machine, load = record["machine"], record["load_average"]
    parts = [
        speed_table(record),
        *(f"{one['what']}: not measured, {one['why']}." for one in record["skipped"]),
        request_table(record),
    ]
    if any(one["requests"]["levels"] for one in record["engines"].values()):
        parts.append(level_table(record))
    parts += [
        memory_table(record),
        "Charged: anonymous, dirty and swapped, what iOS and Android hold against an app.",
        f"`{record['command']}`, revision {record['revision']}, {record['seconds']:.0f} s; {machine['cpu']}, "
        f"{machine['cores']} cores; load {load['before'][0]} before, {load['after'][0]} after.",
    ]
    return "\n\n".join(parts) + "\n"
