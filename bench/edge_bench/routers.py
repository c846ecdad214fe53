"""Time and memory of a bundle's routers beside sentence-transformers, a process each.

    python -m edge_bench.routers BUNDLE PROMPTS.txt

One thread, one prompt at a time, from text to path; memory is what the process grew by beyond the opened tree.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from edge_bench.command import guarded
from edge_runtime import _core
from edge_runtime.bundle import Bundle
from edge_runtime.cli.main import Parser
from edge_runtime.cli.route import own_bytes, read_prompts
from edge_runtime.embedders import open_embedder
from edge_runtime.errors import UnsupportedError
from edge_runtime.stats import resident_memory
from edge_runtime.text import readable

PEER = "sentence-transformers"
WARM_UP = 5  # prompts


def _opened(name: str, bundle: Bundle) -> Callable[[str], NDArray[np.float32]]:
    if name != PEER:
        return open_embedder(bundle, name, threads=1).embed
    import torch
    from sentence_transformers import SentenceTransformer

    from edge_pretrain.embed import locate

    torch.set_num_threads(1)
    model = SentenceTransformer(str(locate(None)), device="cpu")

    def embed(text: str) -> NDArray[np.float32]:
        found: NDArray[np.float32] = model.encode(text, normalize_embeddings=True, show_progress_bar=False)
        return found

    return embed


def contestant(name: str, bundle: Bundle, prompts: list[str]) -> dict[str, Any]:
    """One thread, one prompt at a time: from text to path. Memory beyond that of the process with the tree open."""
    router = bundle.manifest.router
    assert router is not None
    tree = _core.Tree(str(bundle.path_of(router.tree)))
    before = resident_memory().total
    start = time.perf_counter()
    embed = _opened(name, bundle)
    for prompt in prompts[:WARM_UP]:
        tree.descend(embed(readable(prompt)))
    open_ms = 1e3 * (time.perf_counter() - start)
    times = []
    for prompt in prompts:
        start = time.perf_counter()
        tree.descend(embed(readable(prompt)))
        times.append(1e6 * (time.perf_counter() - start))
    grown = resident_memory().total - before
    return {
        "router": name,
        "us_median": round(statistics.median(times), 1),
        "us_p95": round(float(np.percentile(times, 95)), 1),
        "open_ms": round(open_ms, 1),
        "resident_bytes": grown,
        "disk_bytes": None if name == PEER else own_bytes(bundle, router.embedder(name)),
    }


def measure(directory: Path, prompts: Path) -> list[dict[str, Any]]:
    """Every router of the bundle, and the peer, one after another."""
    router = Bundle.open(directory).manifest.router
    if router is None:
        raise UnsupportedError(f"{directory}: it has no router")
    found = []
    for name in [*(spec.name for spec in router.embedders), PEER]:
        command = [sys.executable, "-m", "edge_bench.routers", str(directory), str(prompts), "--only", name]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        if done.returncode:
            raise UnsupportedError(f"{name}: {done.stderr.strip().splitlines()[-1]}")
        found.append(json.loads(done.stdout.splitlines()[-1]))
    return found


def show(found: list[dict[str, Any]], console: Console) -> None:
    """The same as a table."""
    table = Table("router", "µs a prompt", "95%", "open ms", "memory MB", "disk MB")
    for row in found:
        disk = "-" if row["disk_bytes"] is None else f"{row['disk_bytes'] / 1e6:.2f}"
        times = [f"{row[key]:,.0f}" for key in ("us_median", "us_p95", "open_ms")]
        table.add_row(row["router"], *times, f"{row['resident_bytes'] / 1e6:.1f}", disk)
    console.print(table)


def run(arguments: argparse.Namespace) -> int:
    if arguments.only is not None:
        bundle, prompts = Bundle.open(arguments.bundle), read_prompts(arguments.prompts)
        print(json.dumps(contestant(arguments.only, bundle, prompts)))
        return 0
    found = measure(arguments.bundle, arguments.prompts)
    if arguments.json:
        print(json.dumps(found))
    else:
        show(found, Console(highlight=False, soft_wrap=True))
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    parser = Parser(prog="python -m edge_bench.routers", description=__doc__.splitlines()[0])
    parser.add_argument("bundle", type=Path, metavar="BUNDLE")
    parser.add_argument("prompts", type=Path, metavar="PROMPTS.txt", help="one prompt a line")
    parser.add_argument("--only", metavar="NAME", help="this one, in this process")
    parser.add_argument("--json", action="store_true")
    return guarded(parser, run, arguments)


if __name__ == "__main__":
    sys.exit(main())
