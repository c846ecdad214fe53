"""Speed against limit, as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

FAST, KILLED = "#1b6ca8", "#b3392f"


def draw(record: dict[str, Any], path: Path) -> None:
    """The suffix of the path chooses the format."""
    full = record["unrestricted"]["requests_per_s"]
    done = [one for one in record["trials"] if one["requests_per_s"] > 0]
    ended = [one for one in record["trials"] if one["requests_per_s"] == 0]
    figure = Figure(figsize=(6.4, 3.8), layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)

    def megabytes(rows: list[dict[str, Any]]) -> list[float]:
        return [one["limit_bytes"] / 1e6 for one in rows]

    speeds = [100 * one["requests_per_s"] / full for one in done]
    axes.plot(megabytes(done), speeds, "o-", color=FAST, markersize=4, label="answered")
    if ended:
        axes.plot(megabytes(ended), [0] * len(ended), "x", color=KILLED, label="did not get through")
    least = record["smallest_limit_bytes"] / 1e6
    axes.axvline(least, color="black", linewidth=0.8, linestyle=":")
    axes.annotate(
        f"{least:,.1f} MB",
        (least, 1),
        (4, -10),
        xycoords=("data", "axes fraction"),
        textcoords="offset points",
        fontsize=9,
    )
    axes.axhline(100 * record["fraction"], color="black", linewidth=0.8, linestyle="--")
    axes.set_xlabel("memory limit, MB")
    axes.set_ylabel("% of the speed without a limit")
    axes.set_ylim(-4, max(110, *speeds))
    axes.set_title(f"{record['bundle']}, {record['engine']}", fontsize=10)
    axes.legend(fontsize=8, loc="lower right")
    figure.savefig(path, dpi=110)
