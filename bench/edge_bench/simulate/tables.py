"""The results as text."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table


def _table(title: str, columns: tuple[str, ...], rows: list[tuple[Any, ...]]) -> Table:
    table = Table(*columns, title=title, title_justify="left")
    for row in rows:
        table.add_row(*map(str, row))
    return table


def figure5(record: dict[str, Any], console: Console) -> None:
    rows = []
    for key in ("flat_ms", "hierarchical_ms", "sibling_ms", "pager_ms"):
        error = record["error"].get(key)
        real = record["real_throttled"][key]
        rows.append(
            (
                key,
                record["paper"].get(key, "-"),
                record[key],
                "-" if error is None else f"{error:+.1%}",
                f"{real['median']} ({real['min']} to {real['max']})",
            )
        )
    console.print(
        _table("Figure 5, ms", ("figure", "paper", "simulated", "error", "real files, throttled"), rows)
    )


def validate(record: dict[str, Any], console: Console) -> None:
    rows = [
        (
            c["device"],
            f"{c['bytes'] / 1e6:.2f}",
            c["prompts"],
            *(f"{c[kind][key]:.2f}" for key in ("median", "p95") for kind in ("measured_ms", "predicted_ms")),
            f"{c['error']['median']:+.1%}",
            f"{c['error']['p95']:+.1%}",
        )
        for c in record["cases"]
    ]
    columns = ("device", "MB", "prompts", "median", "predicted", "p95", "predicted", "error", "error p95")
    console.print(_table("Fetches, ms", columns, rows))
    console.print(f"mean error: median {record['median_error']:.1%}, p95 {record['p95_error']:.1%}")


def search(record: dict[str, Any], console: Console) -> None:
    rows = [
        (
            tuple(r["rows"]),
            r["dtype"],
            " ".join(f"{level}={name}" for level, name in r["placement"].items()),
            f"{r['fetched_parameters'] / 1e6:.1f}",
            f"{r['bank_parameters'] / 1e9:.2f}",
            f"{r['flash_bytes'] / 1e9:.2f}",
            f"{r['p50_ms']:.2f} / {r['p95_ms']:.2f}",
            "best" if r == record["best"] else "yes" if r["feasible"] else "too slow",
        )
        for r in record["front"]
    ]
    columns = (
        "rows",
        "dtype",
        "placement",
        "M fetched",
        "G in the bank",
        "GB of flash",
        "p50 / p95 ms",
        "fits",
    )
    console.print(_table("The Pareto front", columns, rows))
    if record["best"] is None:
        console.print("no configuration meets the limits: give more memory, flash or time")


def answers(record: dict[str, Any], console: Console) -> None:
    kinds = ("fetch_ms", "stall_ms")
    rows = [(kind, *(f"{value:.3f}" for value in record[kind].values())) for kind in kinds]
    console.print(_table("Latency", ("", *record["fetch_ms"]), rows))
    day = record["day"]
    read = ", ".join(f"{size / 1e9:.3f} GB from {key}" for key, size in day["read_bytes"].items())
    console.print(f"a prompt reads {record['bytes_per_prompt'] / 1e6:.2f} MB; hit rates {record['hit_rate']}")
    console.print(f"a day of {day['prompts']:,.0f} prompts: {read}; {day['energy_joules']:.3g} J")
    for key, wear in day["wear"].items():
        console.print(
            f"{key}: {wear['life_share_a_year']:.2e} of its life a year, from updates; reads wear nothing"
        )
    if budget := record.get("budget"):
        least = budget["smallest_bytes"]
        console.print(
            f"p95 within {budget['target_ms']:g} ms: "
            + ("no budget of up to 32 paths does" if least is None else f"a budget of {least / 1e6:.1f} MB")
        )
    if policies := record.get("policies"):
        columns = tuple(policies[0])
        console.print(_table("Policies", columns, [tuple(row.values()) for row in policies]))


TABLES = {"figure5": figure5, "validate": validate, "search": search, "answers": answers}
