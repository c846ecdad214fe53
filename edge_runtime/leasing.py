"""What a conversation reads of the bank: a lease that follows its topic."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from edge_runtime.errors import UnsupportedError
from edge_runtime.pager import Lease, Node
from edge_runtime.prefix import MemoryKey
from edge_runtime.routing import RoutingPolicy, Topic
from edge_runtime.stats import GenerationStats

if TYPE_CHECKING:
    from edge_runtime.runtime import Runtime

MemoryMode = Literal["fetched", "generic", "none"]


class Leasing:
    """One lease at a time, and the topic that it belongs to. Not thread-safe."""

    def __init__(self, runtime: Runtime, policy: RoutingPolicy) -> None:
        self._runtime, self._policy = runtime, policy
        self._topic = None if runtime.router is None else Topic(runtime.router, policy)
        self._lease: Lease | None = None
        self._nodes: list[Node] = []  # of the lease

    @property
    def key(self) -> MemoryKey:
        """What is read now: nothing where there is no lease."""
        return self._runtime.bundle.manifest.revision, () if self._lease is None else tuple(self._nodes)

    def reset(self) -> None:
        """A new conversation. The lease stays until the next fetch needs its place."""
        if self._topic is not None:
            self._topic.reset()

    def close(self) -> None:
        """Gives up the lease."""
        if self._lease is not None:
            self._lease.release()
            self._lease = None

    def fetch(self, text: str, memory: MemoryMode, blocked: Sequence[Node], stats: GenerationStats) -> int:
        """Starts reading what a text asks for; the handle that the program reads through, 0 for no memory."""
        stats.memory = memory
        if memory == "none" or self._runtime.pager is None:
            self.close()
            return 0
        return self._read(self._routed(text, blocked, stats) if memory == "fetched" else [(0, 0)], stats)

    def follow(
        self, recent: Sequence[int], blocked: Sequence[Node], stats: GenerationStats, handle: int
    ) -> int:
        """The handle to go on with, routed by the last of these tokens. REQUIRES that `fetched` memory is read."""
        text = self._runtime.tokenizer.decode(recent[-self._policy.window :])
        nodes = self._routed(text, blocked, stats)
        if nodes == self._nodes:
            return handle
        stats.switches += 1
        return self._read(nodes, stats)

    def finish(self, stats: GenerationStats) -> None:
        """Says how long the last fetch took and how much of it was waited for, and what the pager holds."""
        if self._lease is not None and stats.memory != "none":
            self._time(self._lease, stats)
        if self._runtime.pager is not None:
            stats.bank_resident_bytes = self._runtime.pager.stats()["resident_bytes"]

    def _time(self, lease: Lease, stats: GenerationStats) -> None:
        if lease.fetch_ns is None:
            stats.fetch_ms = stats.stall_ms = stats.hidden_ms = None
            return
        stats.fetch_ms = lease.fetch_ns / 1e6
        stats.stall_ms = lease.stall_ns / 1e6
        stats.hidden_ms = max(0.0, stats.fetch_ms - stats.stall_ms)

    def _read(self, nodes: list[Node], stats: GenerationStats) -> int:
        assert self._runtime.pager is not None
        if self._lease is not None and self._lease.released:
            self._lease = None
        # The old lease goes in the same step: a change of topic needs no double budget.
        self._lease = self._runtime.pager.fetch(nodes, self._lease)
        self._nodes = nodes
        stats.bytes_read += self._lease.bytes_read
        return self._lease.handle

    def _routed(self, text: str, blocked: Sequence[Node], stats: GenerationStats) -> list[Node]:
        """The route's nodes that have memory, or the generic one where no level is sure."""
        bundle = self._runtime.bundle
        memory = bundle.manifest.memory
        if self._topic is None or memory is None:
            raise UnsupportedError(f"{bundle.directory}: it has no router")
        start = time.perf_counter()
        route = self._topic.route(text, blocked)
        stats.routes += 1
        stats.route_ms += 1e3 * (time.perf_counter() - start)
        stats.path, stats.margins = route.path, route.margins
        if not route.path and self._policy.min_margin > 0:
            stats.memory = "generic"
            return [(0, 0)]
        stats.memory = "fetched"
        removed = bundle.state.removed
        return [node for node in route.nodes if memory.level(node[0]) is not None and node not in removed]
