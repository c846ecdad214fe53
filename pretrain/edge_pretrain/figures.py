"""Figures of the experiments."""

from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np

mpl.use("Agg")
from matplotlib import pyplot as plt

LABELS = ("rarest\nfifth", "2nd", "3rd", "4th", "most\nfrequent")
COLOURS = {
    "baseline": "#9aa0a6",
    "dense_control": "#5f6368",
    "generic": "#f4b183",
    "fetched": "#1a73e8",
    "blocked": "#d93025",
    "random": "#f9ab00",
}


def accuracy_by_bucket(accuracy: dict[str, Any], path: Path) -> None:
    """Bars of the mean over seeds, a dot a seed. accuracy: name -> variant -> seed -> five accuracies."""
    figure, axes = plt.subplots(
        1, len(accuracy), figsize=(6.5 * len(accuracy), 4.2), sharey=True, squeeze=False
    )
    for axis, (name, variants) in zip(axes[0], accuracy.items(), strict=True):
        width = 0.8 / len(variants)
        for i, (variant, seeds) in enumerate(variants.items()):
            values = 100 * np.array(list(seeds.values()))
            x = np.arange(len(LABELS)) + (i - (len(variants) - 1) / 2) * width
            axis.bar(
                x, values.mean(axis=0), 0.92 * width, label=variant.replace("_", " "), color=COLOURS[variant]
            )
            for row in values:
                axis.plot(x, row, ".", color="black", markersize=3, alpha=0.6)
        axis.set_xticks(np.arange(len(LABELS)), LABELS)
        axis.set_title(f"{name.replace('_', ' ')} of the elements")
        axis.set_ylim(0, 100)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0][0].set_ylabel("right answers to held-out phrasings, %")
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, frameon=False, loc="lower center", ncols=len(labels))
    figure.tight_layout(rect=(0, 0.07, 1, 1))
    figure.savefig(path, dpi=150)
    plt.close(figure)


def bars(runs: dict[str, dict[str, dict[str, float]]], title: str, path: Path) -> None:
    """Accuracy on the rarest fifth and on all elements: mean over seeds, standard deviation, a dot a seed.

    runs: name -> seed -> measure -> value.
    """
    figure, axis = plt.subplots(figsize=(2.5 + 1.3 * len(runs), 4.2))
    measures = (("rarest_fifth", "rarest fifth", "#1a73e8"), ("all", "all elements", "#9aa0a6"))
    for i, (measure, label, colour) in enumerate(measures):
        for x, seeds in enumerate(runs.values()):
            values = 100 * np.array([run[measure] for run in seeds.values()])
            error = values.std(ddof=1) if len(values) > 1 else None
            place = x + 0.4 * (i - 0.5)
            axis.bar(
                place,
                values.mean(),
                0.37,
                yerr=error,
                capsize=3,
                color=colour,
                label=label if x == 0 else None,
            )
            axis.plot([place] * len(values), values, ".", color="black", markersize=3, alpha=0.6)
    axis.set_xticks(range(len(runs)), [name.replace(", ", "\n") for name in runs])
    axis.set_ylabel("right answers to held-out phrasings, %")
    axis.set_title(title, fontsize=9, wrap=True)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False)
    figure.tight_layout()
    figure.savefig(path, dpi=150)
    plt.close(figure)
