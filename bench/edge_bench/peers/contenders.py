"""What takes part: a contender is one peer with one model at one quantisation, and a row of the record."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

from edge_runtime.errors import InvalidArgumentError, UnsupportedError


@dataclass(frozen=True)
class Plan:
    """directory: of what is made to be measured, and kept."""

    model: str
    peers: tuple[str, ...]
    named: bool  # the peers were asked for by name: then all must run
    quick: bool
    threads: int
    repetitions: int
    decode_tokens: int
    directory: Path
    say: Callable[[str], None]


@dataclass(frozen=True)
class Contender:
    """options: of its worker's `open`. swap: of its worker's `swap`; None where nothing is swapped."""

    peer: str
    quantisation: str
    bits: int
    model: str
    version: str
    program: Path  # what holds its weights
    subject: str  # module:class of the worker
    options: dict[str, Any] = field(default_factory=dict)
    memory: bool = False
    swap: dict[str, Any] | None = None
    swapped: str = ""  # what is
    swap_bytes: int = 0
    dense: bool = False  # a larger model without memory, to compare with the smaller one and its memory
    token_bytes: int = 0  # of weights that a token reads, where they are known
    swaps_only: bool = False  # its decoding is another contender's, or no model of its own

    @property
    def name(self) -> str:
        return f"{self.peer} {self.quantisation}" + (f", dense {self.model}" if self.dense else "")


PEERS = {
    "llama.cpp": "edge_bench.peers.llama_cpp",
    "executorch": "edge_bench.peers.executorch",
    "onnxruntime": "edge_bench.peers.onnxruntime",
    "onnxruntime-genai": "edge_bench.peers.genai",
    "native": "edge_bench.peers.native",
}
"""Modules with `contenders(plan)`, which makes what is missing of its inputs."""


def versions_of(*packages: str) -> str:
    """UnsupportedError where one is not installed."""
    try:
        return ", ".join(f"{package} {metadata.version(package)}" for package in packages)
    except metadata.PackageNotFoundError as error:
        raise UnsupportedError(f"{error.name} is not installed") from None


def all_contenders(plan: Plan) -> tuple[list[Contender], list[dict[str, str]]]:
    """And who cannot take part here, with the reason.

    Raises:
        UnsupportedError: one that was named cannot; or nobody can.
        InvalidArgumentError: a peer that is not known.
    """
    found: list[Contender] = []
    skipped: list[dict[str, str]] = []
    for peer in plan.peers:
        if peer not in PEERS:
            raise InvalidArgumentError(f"--only {peer}: there are {', '.join(PEERS)}")
        try:
            made: Sequence[Contender] = import_module(PEERS[peer]).contenders(plan)
        except UnsupportedError as error:
            if plan.named:
                raise
            plan.say(f"{peer}: left out: {error}")
            skipped.append({"what": peer, "why": str(error)})
            continue
        found += made
    if not found:
        raise UnsupportedError("; ".join(f"{one['what']}: {one['why']}" for one in skipped))
    return found, skipped
