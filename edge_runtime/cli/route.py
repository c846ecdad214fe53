"""`edge-runtime route`: the path of a prompt, or the bundle's routers compared over a file of prompts."""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track
from rich.table import Table

from edge_runtime import _core
from edge_runtime.bundle import Bundle
from edge_runtime.cli.options import check_threads, megabytes
from edge_runtime.cli.verb import Verb
from edge_runtime.embedders import STATIC, open_embedder
from edge_runtime.errors import BadFormatError, InvalidArgumentError, NotFoundError, UnsupportedError
from edge_runtime.manifest import EmbedderSpec
from edge_runtime.router import Router

MAX_PATHS = 256  # what the tree ranks at most
WARM_UP = 3  # prompts that are routed first and not timed


@dataclass(frozen=True)
class Compared:
    """One router over a file of prompts. `agreement[l - 1]`: the share whose first l nodes are the reference's.

    bytes: of its own files. What it takes in memory needs a process each: `edge_bench.routers`.
    """

    name: str
    engine: str
    default: bool
    agreement: list[float] | None
    us_median: float
    us_p95: float
    bytes: int


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="the bundle's directory")
    parser.add_argument("prompt", nargs="?", metavar="PROMPT", help="the text to route")
    parser.add_argument(
        "--compare", type=Path, metavar="FILE", help="route a file of prompts, one a line, with every router"
    )
    parser.add_argument("--router", metavar="NAME", help="which router (default: the bundle's default)")
    parser.add_argument("--top-paths", type=int, metavar="M", help="show the M best paths (default: 1)")
    parser.add_argument("--threads", type=int, default=1, help="of the engine (default: 1)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def read_prompts(path: Path) -> list[str]:
    """The lines that are not blank; bytes that are not UTF-8 are replaced."""
    if not path.is_file():
        raise NotFoundError(f"{path}: no such file: name a text file with a prompt a line")
    text = path.read_bytes().decode("utf-8", "replace")
    prompts = [line for line in text.split("\n") if line.strip()]
    if not prompts:
        raise BadFormatError(f"{path}: it has no prompts")
    return prompts


def reference(bundle: Bundle) -> EmbedderSpec | None:
    """The router that the others stand in for: the first whose embedder is a program, the largest of these."""
    router = bundle.manifest.router
    programs = [spec for spec in router.embedders if spec.engine != STATIC] if router else []
    return max(programs, key=lambda spec: bundle.manifest.files[spec.path].bytes, default=None)


def own_bytes(bundle: Bundle, spec: EmbedderSpec) -> int:
    """Of the files that are there for this router alone."""
    paths = {spec.path, spec.tokenizer} - {bundle.manifest.tokenizer_path}
    return sum(bundle.manifest.files[path].bytes for path in paths)


def compare(bundle: Bundle, prompts: list[str], threads: int, console: Console) -> dict[str, Any]:
    """What `--compare --json` prints."""
    router = bundle.manifest.router
    assert router is not None
    paths: dict[str, list[list[int]]] = {}
    costs: dict[str, list[float]] = {}
    for spec in router.embedders:
        opened = Router(
            _core.Tree(str(bundle.path_of(router.tree))),
            open_embedder(bundle, spec.name, threads),
            bundle.blocked,
        )
        for prompt in prompts[:WARM_UP]:
            opened.route(prompt)
        paths[spec.name], times = [], []
        for prompt in track(
            prompts, spec.name, console=console, transient=True, disable=not console.is_terminal
        ):
            start = time.perf_counter()
            route = opened.route(prompt)
            times.append(1e6 * (time.perf_counter() - start))
            paths[spec.name].append(route.path)
        costs[spec.name] = times
    wanted = reference(bundle)
    found = []
    for spec in router.embedders:
        agreement = None
        if wanted is not None:
            pairs = list(zip(paths[spec.name], paths[wanted.name], strict=True))
            agreement = [
                statistics.mean(one[:level] == other[:level] for one, other in pairs)
                for level in range(1, router.depth + 1)
            ]
        times = costs[spec.name]
        compared = Compared(
            spec.name,
            spec.engine,
            spec.name == router.default,
            agreement,
            round(statistics.median(times), 1),
            round(sorted(times)[math.ceil(0.95 * len(times)) - 1], 1),
            own_bytes(bundle, spec),
        )
        found.append(asdict(compared))
    return {
        "prompts": len(prompts),
        "reference": None if wanted is None else wanted.name,
        "threads": threads,
        "tree_bytes": bundle.manifest.files[router.tree].bytes,
        "routers": found,
    }


def _print_comparison(record: dict[str, Any], console: Console) -> None:
    depth = max((len(router["agreement"] or []) for router in record["routers"]), default=0)
    levels = [f"level {level}" for level in range(1, depth + 1)]
    title = f"{record['prompts']} prompts; agreement with {record['reference'] or 'nobody'}"
    table = Table("router", "engine", *levels, "µs a prompt", "95%", "on disk", title=title)
    for router in record["routers"]:
        name = f"{router['name']} (default)" if router["default"] else router["name"]
        shares = [f"{share:.1%}" for share in router["agreement"] or []]
        times = [f"{router[key]:,.0f}" for key in ("us_median", "us_p95")]
        table.add_row(name, router["engine"], *shares, *times, megabytes(router["bytes"]))
    console.print(table)


def _route_one(bundle: Bundle, arguments: argparse.Namespace) -> None:
    spec = bundle.manifest.router
    assert spec is not None
    router = Router(
        _core.Tree(str(bundle.path_of(spec.tree))),
        open_embedder(bundle, arguments.router, arguments.threads),
        bundle.blocked,
    )
    route = router.route(arguments.prompt, top_paths=arguments.top_paths or 1)
    name = arguments.router or spec.default
    ranked = [(route.path, 0.0), *route.others]
    if arguments.json:
        margins = [round(margin, 6) if math.isfinite(margin) else None for margin in route.margins]
        paths = [{"path": path, "conceded": round(conceded, 6)} for path, conceded in ranked]
        print(json.dumps({"router": name, "path": route.path, "margins": margins, "paths": paths}))
        return
    for path, conceded in ranked:
        print(f"{' > '.join(map(str, path)) or '-'}   concedes {conceded:.4f}")
    print(f"margins {', '.join(f'{margin:.4f}' for margin in route.margins) or '-'} ({name})")


def run(arguments: argparse.Namespace) -> int:
    if (arguments.prompt is None) == (arguments.compare is None):
        raise InvalidArgumentError("route takes either a PROMPT or --compare FILE")
    check_threads(arguments.threads)
    if arguments.compare is not None and (arguments.router is not None or arguments.top_paths is not None):
        raise InvalidArgumentError("--router and --top-paths are of a PROMPT: --compare takes every router")
    if arguments.top_paths is not None and not 1 <= arguments.top_paths <= MAX_PATHS:
        raise InvalidArgumentError(f"--top-paths {arguments.top_paths}: ask for 1 to {MAX_PATHS}")
    bundle = Bundle.open(arguments.bundle)
    if bundle.manifest.router is None:
        raise UnsupportedError(f"{bundle.directory}: it has no router")
    if arguments.compare is None:
        _route_one(bundle, arguments)
        return 0
    prompts = read_prompts(arguments.compare)
    record = compare(bundle, prompts, arguments.threads, Console(stderr=True))
    if arguments.json:
        print(json.dumps(record))
    else:
        _print_comparison(record, Console(highlight=False))
    return 0


VERB = Verb("route", "Shows the path of a prompt, or compares the bundle's routers.", add_arguments, run)
