"""The record of `edge_bench.peers` as markdown."""

from __future__ import annotations

from typing import Any

from edge_bench import aims
from edge_bench.report import table


def _number(value: float | None, digits: int = 0) -> str:
    return "-" if value is None else f"{value:,.{digits}f}"


def _megabytes(value: int | None) -> str:
    return "-" if value is None else f"{value / 1e6:,.0f}"


def speed_table(rows: list[dict[str, Any]]) -> str:
    head = ("peer", "version", "model", "weights MB", "prefill 128", "prefill 512", "decode", "with memory",
            "of bandwidth", "resident MB")  # fmt: skip
    body = [
        (
            f"{row['name']}",
            row["version"],
            row["model"],
            _megabytes(row["program_bytes"]),
            _number(row["prefill128"]),
            _number(row["prefill512"]),
            f"{_number(row['decode'], 1)} ± {row['decode_spread'] / 2:.0%}",
            _number(row["decode_memory"], 1),
            "-" if row.get("read_share") is None else f"{row['read_share']:.0%}",
            _megabytes(row["resident"]),
        )
        for row in rows
        if row["decode"] is not None
    ]
    return table(head, body)


def swap_table(rows: list[dict[str, Any]]) -> str:
    head = ("peer", "swapped", "MB", "cold ms", "preloaded ms", "resident ms")
    body = [
        (
            row["name"],
            row["swapped"],
            _number(row["swap_bytes"] / 1e6, 1),
            *(_number(row[key], 2) for key in ("swap_cold_ms", "swap_ms", "swap_resident_ms")),
        )
        for row in rows
        if row["swapped"]
    ]
    return table(head, body)


def ratio_table(model: str, found: list[dict[str, Any]]) -> str:
    body = [
        (
            one["what"],
            one["ours"],
            one["other"],
            f"**{one['median']:.2f}**",
            f"{one['q1']:.2f} to {one['q3']:.2f}",
            aims.told(aims.of_ratio(model, one["what"], one["ours"], one["other"]), one["median"]),
        )
        for one in found
    ]
    return table(("what", "ours", "over", "times as fast", "quartiles of the pairs", "aim"), body)


def markdown(record: dict[str, Any]) -> str:
    machine = record["machine"]
    before, after = (record["load_average"][when][0] for when in ("before", "after"))
    parts = [
        f"`{record['command']}`, revision {record['revision']}, {record['seconds']:.0f} s; {machine['cpu']}, "
        f"{machine['cores']} cores, {record['threads']} threads; load {before} before, {after} after.",
        f"Tokens a second, medians of {record['repetitions']} interleaved rounds; decode of {record['decode_tokens']} "
        "tokens, ± half its whole spread. Resident: the process at its most, Python included, without memory.",
        speed_table(record["rows"]),
    ]
    if read := record.get("read_bytes_per_s"):
        least, median, most = (read[key] / 1e9 for key in ("least", "median", "most"))
        parts.append(
            f"Of bandwidth: the weights' bytes times decode, over memory read by {record['threads']} threads, "
            f"{median:.1f} GB/s ({least:.1f} to {most:.1f} before and after)."
        )
    if any(row["swapped"] for row in record["rows"]):
        parts += ["What a swap delays the next token by:", swap_table(record["rows"])]
    if record["ratios"]:
        parts.append(ratio_table(record["model"], record["ratios"]))
    parts += [f"{one['what']}: not measured, {one['why']}." for one in record["skipped"]]
    return "\n\n".join(parts) + "\n"
