"""The record of iobench as a picture: who reads how fast, and where the raw reader's best is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

OURS, RAW, PEER = "#1b6ca8", "#7a7a7a", "#d98f2b"


def colour(name: str) -> str:
    return OURS if name.startswith("pager") else RAW if name.startswith("raw") else PEER


def bars(axes: Axes, rows: list[dict[str, Any]], title: str) -> None:
    """Bandwidth a reader, with the quartiles of its times."""
    ordered = sorted(rows, key=lambda row: row["mb_per_s"])
    for at, row in enumerate(ordered):
        speed = row["mb_per_s"]
        low, high = (row["bytes"] / row[key] / 1e3 for key in ("q3_ms", "q1_ms"))
        axes.barh(at, speed, color=colour(row["name"]), height=0.7)
        axes.plot((low, high), (at, at), color="black", linewidth=1.2)
        axes.annotate(
            f"{speed:,.0f}",
            (max(speed, high), at),
            (4, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
        )
    axes.set_yticks(range(len(ordered)), [row["name"] for row in ordered], fontsize=8)
    axes.set_xlim(0, 1.15 * max(row["bytes"] / row["q1_ms"] / 1e3 for row in rows))
    axes.set_xlabel("MB/s: median, line from quartile to quartile")
    axes.set_title(title, fontsize=10)


def sweep(axes: Axes, config: dict[str, Any]) -> None:
    """The raw reader's bandwidth over reads under way, the best chunk of each depth; ours as a line across."""
    rows = config["raw_sweep"]
    for engine, style in (("pread", "o-"), ("io_uring", "s--")):
        depths = sorted({row["depth"] for row in rows if row["engine"] == engine})
        if not depths:
            continue
        best = [
            max(
                (row for row in rows if (row["engine"], row["depth"]) == (engine, depth)),
                key=lambda r: r["mb_per_s"],
            )
            for depth in depths
        ]
        axes.plot(
            depths, [row["mb_per_s"] for row in best], style, color=RAW, label=f"raw {engine}, best chunk"
        )
    ours = next(row for row in config["cold"] if row["name"] == "pager auto")
    axes.axhline(ours["mb_per_s"], color=OURS, label="pager auto, verified")
    axes.set_xscale("log", base=2)
    axes.set_xticks(depths_of(rows), [str(depth) for depth in depths_of(rows)])
    axes.set_ylim(bottom=0)
    axes.set_xlabel("reads under way")
    axes.set_ylabel("MB/s")
    axes.set_title("Raw O_DIRECT sweep, cold", fontsize=10)
    axes.legend(fontsize=8, loc="lower right")


def depths_of(rows: list[dict[str, Any]]) -> list[int]:
    return sorted({row["depth"] for row in rows})


def draw(record: dict[str, Any], path: Path) -> None:
    """One line of panels for each anchor."""
    configs = record["configs"]
    with mpl.rc_context({"axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(16, 5.2 * len(configs)), layout="constrained")
        for line, (name, config) in enumerate(configs.items()):
            size = config["path_bytes"] / 1e6
            panels = [figure.add_subplot(len(configs), 3, 3 * line + column) for column in (1, 2, 3)]
            bars(panels[0], config["cold"], f"{name}: cold, one path of {size:.1f} MB")
            bars(panels[1], config["warm"], f"{name}: in the page cache")
            sweep(panels[2], config)
        figure.savefig(path, dpi=110)
