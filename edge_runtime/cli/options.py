"""Options that several verbs share."""

from __future__ import annotations

import argparse
import io
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from edge_runtime.errors import InvalidArgumentError
from edge_runtime.pager import Node
from edge_runtime.runtime import Runtime
from edge_runtime.session import Session

MAX_THREADS = 1024  # what the native engine takes
BUDGET_HELP = (
    "memory for blocks of the bank, such as 8MB or 512KiB; it covers bank bytes only: the KV cache and the weights "
    "are reported beside it (default: room for two fetches)"
)


def node(text: str) -> Node:
    """LEVEL:NODE, as argparse calls it."""
    if not (match := re.fullmatch(r"(\d+):(\d+)", text)):
        raise argparse.ArgumentTypeError(f"{text!r} is not LEVEL:NODE, such as 1:7")
    return int(match[1]), int(match[2])


def add_runtime_options(parser: argparse.ArgumentParser) -> None:
    """What `open_runtime` reads."""
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="the bundle's directory")
    parser.add_argument("--budget", metavar="SIZE", help=BUDGET_HELP)
    parser.add_argument(
        "--storage",
        choices=("auto", "direct", "mapped"),
        default="auto",
        help="how the bank is read: past the page cache, or mapped (default: auto)",
    )
    parser.add_argument(
        "--engine", help="which of the bundle's engines, or engine/flavour (default: its first)"
    )
    parser.add_argument("--threads", type=int, default=2, help="of the engine (default: 2)")
    parser.add_argument(
        "--router", metavar="NAME", help="which of the bundle's routers (default: its default)"
    )


def open_runtime(arguments: argparse.Namespace) -> Runtime:
    check_threads(arguments.threads)
    return Runtime.open(
        arguments.bundle,
        arguments.budget,
        arguments.engine,
        arguments.storage,
        arguments.threads,
        arguments.router,
    )


def add_generation_options(parser: argparse.ArgumentParser) -> None:
    """The keyword arguments of `Session.generate`, which `generation_options` collects."""
    parser.add_argument("--max-tokens", type=int, help="of the answer (default: the bundle's)")
    parser.add_argument(
        "--temperature", type=float, help="0 takes the likeliest token (default: the bundle's)"
    )
    parser.add_argument("--top-k", type=int, help="draw among the k likeliest tokens (default: all)")
    parser.add_argument(
        "--top-p", type=float, default=1.0, help="draw among the likeliest, up to this probability"
    )
    parser.add_argument(
        "--min-p",
        type=float,
        default=0.0,
        help="draw among tokens of this share of the likeliest one's probability",
    )
    parser.add_argument(
        "--repetition-penalty",
        type=float,
        default=1.0,
        help="above 1 makes tokens that the text has less likely (default: 1)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the draws (default: 0)")
    parser.add_argument(
        "--memory",
        choices=("fetched", "generic", "none"),
        help="the routed path's blocks, the generic memory, or none (default: fetched where there is a bank)",
    )
    parser.add_argument(
        "--block",
        dest="blocked",
        type=node,
        action="append",
        default=[],
        metavar="LEVEL:NODE",
        help="a node that routing avoids, with its subtree; may be given again",
    )
    parser.add_argument("--stop", action="append", help="a text that ends the answer; may be given again")


def generation_options(arguments: argparse.Namespace) -> dict[str, object]:
    names: Sequence[str] = (
        "max_tokens",
        "temperature",
        "top_k",
        "top_p",
        "min_p",
        "repetition_penalty",
        "seed",
        "memory",
        "blocked",
        "stop",
    )
    return {name: getattr(arguments, name) for name in names}


def take_any_input() -> None:
    """Has the standard input give bytes that are not UTF-8 as arguments do: whoever reads them replaces them."""
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")


def check_threads(threads: int) -> None:
    if not 1 <= threads <= MAX_THREADS:
        raise InvalidArgumentError(f"threads {threads}: it must be 1 to {MAX_THREADS}")


def megabytes(size: int | float | None) -> str:
    """Bytes as people read them, 10^6 a megabyte."""
    return "-" if size is None else f"{size / 1e6:,.2f} MB"


def milliseconds(value: float | None) -> str:
    return "-" if value is None else f"{value:,.1f} ms"


def stats_lines(session: Session) -> list[str]:
    """What the last generation cost, for people."""
    stats = session.stats
    speed = "-" if stats.decode_tokens_per_s is None else f"{stats.decode_tokens_per_s:,.0f} tok/s"
    path = " > ".join(str(number) for number in stats.path) or "-"
    return [
        f"memory     {stats.memory}, path {path}, routed in {milliseconds(stats.route_ms)}",
        f"bank       read {megabytes(stats.bytes_read)} in {milliseconds(stats.fetch_ms)}, "
        f"{milliseconds(stats.stall_ms)} of it waited for; resident "
        f"{megabytes(stats.bank_resident_bytes)} of {megabytes(stats.bank_bytes)}, "
        f"budget {megabytes(stats.budget_bytes)}",
        f"time       first token {milliseconds(stats.ttft_ms)}, then {speed}; "
        f"{stats.prompt_tokens} + {stats.generated_tokens} tokens",
        f"process    {megabytes(stats.resident_bytes)} resident, of which the engine alone "
        f"{megabytes(stats.engine_constant_bytes)}; KV cache {megabytes(stats.kv_bytes)}, "
        f"program {megabytes(stats.weights_bytes)}",
    ]
