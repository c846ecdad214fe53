"""The record of `edge_bench.kernels` as markdown and as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from edge_bench import aims
from edge_bench.report import table

COLOURS = {16: "#1b6ca8", 128: "#d98f2b"}


def _speed(value: dict[str, float]) -> str:
    return f"{value['median']:,.1f} ± {value['sigma']:.1f}"


def markdown(record: dict[str, Any]) -> str:
    machine, load, bandwidth = record["machine"], record["load_average"], record["bandwidth"]
    what = f"{record['anchor']} {record['anchor_dtype']}"
    size = f"{record['program_bytes'] / 1e6:,.0f} MB"
    speed = [
        (what, size, record["threads"], row["memory"], test, _speed(row[key]), f"{row[over]:.3f}")
        for test, key, over in (
            ("pp128", "prefill_tokens_per_s", "prefill_over_off"),
            ("tg", "decode_tokens_per_s", "decode_over_off"),
        )
        for row in record["speed"]["rows"]
    ]
    fetches = [
        (
            f"{row['bytes_per_s'] / 1e9:.1f}",
            row["tokens"],
            *(f"{row[f'{name}_ms']:,.1f}" for name in ("serial", "warm", "off", "on")),
            f"{row['stall_share_off']:.2f}",
            f"{row['stall_share_on']:.2f}",
        )
        for row in record["fetches"]
    ]
    keys = [
        (f"`{key}`", value, aims.told(aims.KEYS.get(key), value))
        for key, value in record.items()
        if isinstance(value, float) and key != "seconds"
    ]
    parts = [
        "# kernels",
        f"`{record['command']}`, revision {record['revision']}, {record['seconds']:.0f} s.",
        f"{machine['cpu']}, {machine['cores']} cores; load {load['before'][0]} before, {load['after'][0]} after.",
        table(("key", "value", "aim"), keys),
        table(("model", "size", "threads", "memory", "test", "t/s ± sigma", "over off"), speed),
        f"Memory is read at {bandwidth['read_bytes_per_s'] / 1e9:.1f} GB/s with {record['threads']} threads and at "
        f"{bandwidth['read_one_thread_bytes_per_s'] / 1e9:.1f} GB/s with one; the int8 kernel streams at "
        f"{bandwidth['kernel_bytes_per_s'] / 1e9:.1f} and {bandwidth['kernel_one_thread_bytes_per_s'] / 1e9:.1f} GB/s, "
        f"{bandwidth['kernel_share']:.0%} and {bandwidth['kernel_share_one_thread']:.0%} of that. Between the rounds "
        f"of decoding, memory was read at {record['speed']['read_bytes_per_s'] / 1e9:.1f} GB/s (median).",
        "## Milliseconds to the first token, by the speed of the device",
        table(
            (
                "GB/s",
                "prompt",
                "fetch alone",
                "warm",
                "fetch first",
                "behind prefill",
                "stall, first",
                "stall, behind",
            ),
            fetches,
        ),
        "Stall: what cold takes longer than warm, over the fetch alone.",
    ]
    return "\n\n".join(parts) + "\n"


def draw(record: dict[str, Any], path: Path) -> None:
    """The share of a fetch that is not hidden, and the time to the first token, over the device's speed."""
    with mpl.rc_context({"axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(12, 4.6), layout="constrained")
        left, right = figure.add_subplot(1, 2, 1), figure.add_subplot(1, 2, 2)
        for tokens, colour in COLOURS.items():
            rows = [row for row in record["fetches"] if row["tokens"] == tokens]
            speeds = [row["bytes_per_s"] / 1e9 for row in rows]
            for name, style, label in (("on", "o-", "behind prefill"), ("off", "s--", "fetch first")):
                text = f"{tokens} tokens, {label}"
                left.plot(
                    speeds, [row[f"stall_share_{name}"] for row in rows], style, color=colour, label=text
                )
                right.plot(speeds, [row[f"{name}_ms"] for row in rows], style, color=colour, label=text)
            warm = [row["warm_ms"] for row in rows]
            right.plot(speeds, warm, ":", color=colour, label=f"{tokens} tokens, warm")
        for axes, title in (
            (left, "Stall over the fetch alone"),
            (right, "Milliseconds to the first token"),
        ):
            axes.set_xscale("log")
            axes.set_xticks(speeds, [f"{speed:g}" for speed in speeds])
            axes.minorticks_off()
            axes.set_ylim(bottom=0)
            axes.set_xlabel("the device's GB/s")
            axes.set_title(title, fontsize=10)
            axes.legend(fontsize=8)
        figure.savefig(path, dpi=110)
