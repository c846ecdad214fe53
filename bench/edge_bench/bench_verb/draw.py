"""The record of `edge-runtime bench` as a picture: speeds, first tokens and memory, engine by engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

OFF, ON, COLD, CLEAN = "#9aa5b1", "#1b6ca8", "#d98f2b", "#d5dbe1"
Series = list[tuple[str, str, list[float]]]  # label, colour, a value an engine


def draw(record: dict[str, Any], path: Path) -> None:
    """The suffix of the path chooses the format."""
    names = list(record["engines"])
    tests = list(dict.fromkeys(row["test"] for row in record["tests"]))
    with mpl.rc_context({"axes.spines.top": False, "axes.spines.right": False, "font.size": 10}):
        panels = len(tests) + 2
        height = 0.8 + 0.34 * len(names)
        figure = Figure(figsize=(6.4, panels * height + 0.4), layout="constrained")
        axes = figure.subplots(panels, 1)
        for at, test in zip(axes, tests, strict=False):
            grouped(at, names, speeds(record, test, names), f"{test}, tokens a second")
        grouped(axes[-2], names, first_tokens(record, names), "first token, median ms")
        stacked(axes[-1], names, memory(record, names), "resident, MB")
        figure.savefig(path, dpi=110)


def speeds(record: dict[str, Any], test: str, names: list[str]) -> Series:
    found = {(row["engine"], row["memory"]): row["avg_ts"] for row in record["tests"] if row["test"] == test}
    kinds = (("none", OFF), ("fetched", ON))
    return [
        (f"memory {kind}", colour, [found[name, kind] for name in names])
        for kind, colour in kinds
        if (names[0], kind) in found
    ]


def first_tokens(record: dict[str, Any], names: list[str]) -> Series:
    requests = [record["engines"][name]["requests"]["ttft_ms"] for name in names]
    kinds = (("none", OFF, "memory none"), ("warm", ON, "warm"), ("cold", COLD, "cold"))
    return [
        (label, colour, [one[kind]["p50"] for one in requests])
        for kind, colour, label in kinds
        if all(one[kind] for one in requests)
    ]


def memory(record: dict[str, Any], names: list[str]) -> Series:
    steady = [record["engines"][name]["memory"]["steady"] for name in names]
    kinds = (("anonymous", ON), ("dirty", COLD), ("clean", CLEAN))
    return [(kind, colour, [one[f"{kind}_bytes"] / 1e6 for one in steady]) for kind, colour in kinds]


def grouped(axes: Axes, names: list[str], series: Series, title: str) -> None:
    height = 0.8 / len(series)
    for index, (label, colour, values) in enumerate(series):
        at = [row + (index - (len(series) - 1) / 2) * height for row in range(len(names))]
        bars = axes.barh(at, values, height * 0.9, color=colour, label=label)
        axes.bar_label(bars, [short(value) for value in values], padding=3, fontsize=8)
    finish(axes, names, title)


def stacked(axes: Axes, names: list[str], series: Series, title: str) -> None:
    left = [0.0] * len(names)
    for label, colour, values in series:
        axes.barh(range(len(names)), values, 0.6, left=left, color=colour, label=label)
        left = [a + b for a, b in zip(left, values, strict=True)]
    finish(axes, names, title)


def finish(axes: Axes, names: list[str], title: str) -> None:
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.margins(x=0.14)
    axes.set_title(title, fontsize=10, loc="left")
    axes.legend(fontsize=8, loc="lower right", bbox_to_anchor=(1.0, 0.98), ncols=3, frameon=False)


def short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
