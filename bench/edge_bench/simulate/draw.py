"""Pictures of the results."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

OURS, OTHER, ACCENT = "#1b6ca8", "#9a9a9a", "#d98f2b"
DTYPE_COLOURS = {"f16": "#7a5195", "i8": OURS, "i4": ACCENT}


def _panels(count: int, width: float = 6.5) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(width * count, 4.6), layout="constrained")
    return figure, [figure.add_subplot(1, count, i + 1) for i in range(count)]


def figure5(record: dict[str, Any], path: Path) -> None:
    with mpl.rc_context({"axes.spines.top": False, "axes.spines.right": False}):
        figure, (axes,) = _panels(1, 8)
        names = {
            "flat_ms": "flat (fitted)",
            "hierarchical_ms": "hierarchical,\none tier after another",
            "sibling_ms": "sibling switch,\nall on the disk",
            "pager_ms": "hierarchical,\nthis pager",
        }
        sources = (
            ("paper", OTHER, record["paper"]),
            ("simulated", OURS, record),
            (
                "real files, throttled",
                ACCENT,
                {k: v["median"] for k, v in record["real_throttled"].items() if k in names},
            ),
        )
        for i, (label, colour, values) in enumerate(sources):
            for at, key in enumerate(names):
                if key not in values:
                    continue
                bar = axes.bar(
                    at + (i - 1) * 0.27, values[key], 0.25, color=colour, label=label if at == 0 else None
                )
                axes.bar_label(bar, fmt="%.0f", fontsize=9)
        axes.set_xticks(range(len(names)), list(names.values()))
        axes.set_ylabel("ms a fetch")
        axes.legend(frameon=False)
        axes.set_title("Figure 5 of Pouransari et al. 2025: one path of 99 MB")
        figure.savefig(path, dpi=110)


def validate(record: dict[str, Any], path: Path) -> None:
    with mpl.rc_context({"axes.spines.top": False, "axes.spines.right": False}):
        figure, (axes,) = _panels(1, 7)
        for key, marker in (("median", "o"), ("p95", "^")):
            for device, colour in zip(
                dict.fromkeys(c["device"] for c in record["cases"]),
                ("#1b6ca8", "#7a5195", "#d98f2b", "#3a923a", "#c03d3e"),
                strict=False,
            ):
                rows = [c for c in record["cases"] if c["device"] == device]
                axes.plot(
                    [c["measured_ms"][key] for c in rows],
                    [c["predicted_ms"][key] for c in rows],
                    marker,
                    color=colour,
                    label=device if key == "median" else None,
                )
        ends = [c["measured_ms"][key] for c in record["cases"] for key in ("median", "p95")]
        low, high = 0.7 * min(ends), 1.4 * max(ends)
        axes.plot((low, high), (low, high), color="black", linewidth=0.8)
        axes.fill_between(
            (low, high), (0.9 * low, 0.9 * high), (1.1 * low, 1.1 * high), color=OTHER, alpha=0.3
        )
        axes.set(xscale="log", yscale="log", xlabel="measured ms", ylabel="predicted ms")
        axes.set_title("Fetches: circles medians, triangles 95th percentiles; grey within 10%", fontsize=10)
        axes.legend(frameon=False, fontsize=9)
        figure.savefig(path, dpi=110)


def search(record: dict[str, Any], path: Path) -> None:
    with mpl.rc_context({"axes.spines.top": False, "axes.spines.right": False}):
        figure, (axes,) = _panels(1, 9)
        timed = [row for row in record["candidates"] if row["p95_ms"] is not None]
        for dtype, colour in DTYPE_COLOURS.items():
            for pinned, marker in ((False, "o"), (True, "s")):
                rows = [
                    r for r in timed if r["dtype"] == dtype and ("ram" in r["placement"].values()) == pinned
                ]
                axes.plot(
                    [r["p95_ms"] for r in rows],
                    [r["fetched_parameters"] / 1e6 for r in rows],
                    marker,
                    color=colour,
                    markersize=4,
                    alpha=0.6,
                    label=f"{dtype}, level 1 in RAM" if pinned else dtype,
                )
        front = record["front"]
        axes.step(
            [r["p95_ms"] for r in front],
            [r["fetched_parameters"] / 1e6 for r in front],
            where="post",
            color="black",
            linewidth=1.2,
            label="Pareto front",
        )
        axes.axvline(
            record["limits"]["deadline_ms"], color="#c03d3e", linestyle="--", linewidth=1, label="deadline"
        )
        best = record["best"]
        if best is not None:
            axes.annotate(
                f"best: {tuple(best['rows'])} {best['dtype']}",
                (best["p95_ms"], best["fetched_parameters"] / 1e6),
                (10, -22),
                textcoords="offset points",
                arrowprops={"arrowstyle": "->"},
            )
        axes.set(
            xscale="log",
            yscale="log",
            xlabel="ms a fetch, 95th percentile",
            ylabel="million parameters fetched a prompt",
        )
        axes.set_title("Banks that fit in memory and flash")
        axes.legend(frameon=False, fontsize=8, loc="lower right")
        figure.savefig(path, dpi=110)


def answers(record: dict[str, Any], path: Path) -> None:
    extra = [key for key in ("budget", "policies") if key in record]
    with mpl.rc_context({"axes.spines.top": False, "axes.spines.right": False}):
        figure, panels = _panels(1 + len(extra))
        axes = panels[0]
        latency = record["fetch_ms"]
        names = [key for key in latency if key != "mean"]
        bar = axes.bar(names, [latency[key] for key in names], color=OURS)
        axes.bar_label(bar, fmt="%.2f", fontsize=9)
        axes.set(ylabel="ms a fetch", title="Fetch latency")
        for key, axes in zip(extra, panels[1:], strict=True):
            if key == "budget":
                curve = record["budget"]["curve"]
                for name, style in (("p50_ms", "--"), ("p95_ms", "-")):
                    axes.plot(
                        [r["budget_bytes"] / 1e6 for r in curve],
                        [r[name] for r in curve],
                        style,
                        color=OURS,
                        label=name[:3],
                    )
                axes.axhline(record["budget"]["target_ms"], color="#c03d3e", linestyle=":", label="target")
                axes.set(xscale="log", xlabel="budget, MB", ylabel="ms a fetch", title="What a budget buys")
                axes.legend(frameon=False)
            else:
                rows = list(reversed(record["policies"]))
                axes.barh(
                    [f"{r['eviction']}, {r['prefetch']}" for r in rows],
                    [r["mean_ms"] for r in rows],
                    color=OURS,
                )
                axes.set(xlabel="ms a fetch, mean", title="Eviction, prefetch")
        figure.savefig(path, dpi=110)


DRAWERS = {"figure5": figure5, "validate": validate, "search": search, "answers": answers}
