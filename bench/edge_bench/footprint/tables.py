"""The record of `edge-runtime footprint` as markdown."""

from __future__ import annotations

from typing import Any

from edge_bench.report import table


def markdown(record: dict[str, Any]) -> str:
    full = record["unrestricted"]
    rows = [
        (
            f"{one['limit_bytes'] / 1e6:,.1f}",
            f"{one['requests_per_s']:,.1f}",
            f"{one['requests_per_s'] / full['requests_per_s']:.0%}",
            one["outcome"],
        )
        for one in record["trials"]
    ]
    smallest = record["smallest"]
    return "\n\n".join(
        [
            f"{record['bundle']}, {record['engine']}: {record['fraction']:.0%} of the unrestricted speed needs "
            f"**{record['smallest_limit_bytes'] / 1e6:,.1f} MB**; the process then holds "
            f"{smallest['resident_bytes'] / 1e6:,.1f} MB, libraries that others had read before included. "
            f"Unrestricted: {full['requests_per_s']:,.1f} requests/s, {full['peak_bytes'] / 1e6:,.1f} MB charged.",
            table(("limit MB", "requests/s", "of unrestricted", "outcome"), rows),
            f"`{record['command']}`, revision {record['revision']}, {record['seconds']:.0f} s.",
        ]
    )
