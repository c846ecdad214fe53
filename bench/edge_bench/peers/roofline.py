"""Decode beside what reading the weights allows: python -m edge_bench.peers.roofline RECORD... -o docs/roofline.png

A token reads every weight once, so that memory's bandwidth over their bytes bounds the tokens a second, as far as they
do not stay in caches. Records are those of `python -m edge_bench.peers --save`, of one machine.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from edge_bench.command import check_folder, guarded
from edge_bench.records import read_record
from edge_runtime.cli.main import Parser
from edge_runtime.errors import BadFormatError

PROGRAM, TOOL = "edge_bench.peers.roofline", "edge_bench.peers"
STYLES = {
    "native": ("#1b6ca8", "o"),
    "llama.cpp": ("#d98f2b", "s"),
    "executorch": ("#4f9d69", "^"),
    "onnxruntime": ("#7a7a7a", "D"),
}


def draw(records: Sequence[dict[str, Any]], path: Path) -> None:
    """A point for each row that decodes, and the line that the readings of bandwidth give, from least to most."""
    mpl.use("Agg")
    figure = Figure(figsize=(7, 4.4), layout="constrained")
    axes = figure.subplots()
    rows = [row for record in records for row in record["rows"] if row["decode"] and row["peer"] in STYLES]
    megabytes = np.array([row["program_bytes"] / 1e6 for row in rows])
    reach = np.geomspace(0.8 * megabytes.min(), 1.25 * megabytes.max(), 100)
    read = [record["read_bytes_per_s"] for record in records]
    rate = float(np.median([one["median"] for one in read]))
    least, most = min(one["least"] for one in read), max(one["most"] for one in read)
    axes.fill_between(reach, least / 1e6 / reach, most / 1e6 / reach, color="black", alpha=0.12, linewidth=0)
    axes.plot(
        reach, rate / 1e6 / reach, color="black", linewidth=1, label=f"memory read at {rate / 1e9:.1f} GB/s"
    )
    for peer, (colour, marker) in STYLES.items():
        of = [(m, row["decode"]) for m, row in zip(megabytes, rows, strict=True) if row["peer"] == peer]
        if of:
            axes.scatter(*np.array(of).T, color=colour, marker=marker, label=peer, zorder=3)
    for at, row in zip(megabytes, rows, strict=True):
        if row["peer"] == "native":
            axes.annotate(
                f"{row['model']} {row['quantisation']}",
                (at, row["decode"]),
                (5, 5),
                textcoords="offset points",
                fontsize=8,
            )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("MB of weights, log")
    axes.set_ylabel("tokens decoded a second, log")
    axes.set_title(f"{records[0]['machine']['cpu']}, {records[0]['threads']} threads", fontsize=10)
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=110)


def run(arguments: argparse.Namespace) -> int:
    check_folder(arguments.output)
    records = []
    for path in arguments.records:
        record = read_record(path)
        if record["tool"] != TOOL:
            raise BadFormatError(
                f"{path}: a record of {record['tool']}: give those of python -m {TOOL} --save"
            )
        records.append(record)
    if len({record["machine"]["cpu"] for record in records}) > 1:
        raise BadFormatError(
            f"{arguments.records[0]} and others: of several machines, which have no line in common"
        )
    draw(records, arguments.output)
    print(f"wrote {arguments.output}")
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    parser = Parser(prog=PROGRAM, description="Draws decode beside what reading the weights allows.")
    parser.add_argument("records", type=Path, nargs="+", metavar="RECORD")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="PNG")
    return guarded(parser, run, arguments)


if __name__ == "__main__":
    sys.exit(main())
