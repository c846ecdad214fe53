"""Our runtime, opened to be measured beside the peers: with it the engines that it drives."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edge_bench.answering import Answering
from edge_bench.charged import peak_resident
from edge_bench.peers.swapping import Swap, prepare, timed_swap
from edge_runtime.bank import LevelReader
from edge_runtime.bundle import Bundle
from edge_runtime.errors import InvalidArgumentError
from edge_runtime.pager import Node, Pager

TOKEN = np.zeros(1, np.int64)


def two_topics(bundle: Bundle) -> tuple[list[Node], list[Node]]:
    """Paths without a block in common. REQUIRES a bank with a level beside the generic one."""
    memory = bundle.manifest.memory
    assert memory is not None
    levels = [(level.level, LevelReader(bundle.path_of(level.files[0])).nodes()) for level in memory.levels]
    levels = [(level, nodes) for level, nodes in levels if level > 0]
    top, _ = levels[0]
    leaves = [int(leaf) for leaf in levels[-1][1]]
    paths = [
        [(level, leaf // memory.fanout ** (levels[-1][0] - level)) for level, _ in levels]
        for leaf in (leaves[0], leaves[-1])
    ]
    if set(paths[0]) & set(paths[1]):
        raise InvalidArgumentError(f"{bundle.directory}: its bank has one node of level {top} only")
    return paths[0], paths[1]


class EngineWorker(Answering):
    def peak(self) -> int:
        return peak_resident()

    def swap(self, state: str, number: int) -> Swap:
        """From one topic to another one, which shares no block with it.

        resident: both are within the pager's budget, which holds a single path otherwise.
        """
        runtime = self._opened()
        memory = runtime.bundle.manifest.memory
        assert memory is not None
        files = [Path(path) for paths in runtime.bundle.level_paths for path in paths]
        topics = two_topics(runtime.bundle)
        old, new = topics[number - 1], topics[number]
        path_bytes = sum(level.block_bytes for level in memory.levels if level.level > 0)
        prepare(state, files)
        # `auto` looks at the files that it opens: it is opened in the state that is measured.
        budget = path_bytes * (2 if state == "resident" else 1)
        pager = Pager(runtime.bundle.level_paths, budget)
        if state == "resident":
            with pager.fetch(new) as both:
                both.wait()
        lease = pager.fetch(old)
        lease.wait()
        prepare(state, files)
        context = runtime.engine.new_context()

        def switch() -> None:
            nonlocal lease
            lease = pager.fetch(new, replacing=lease)
            lease.wait()

        try:
            return timed_swap(switch, lambda: context.forward(TOKEN, lease.handle))
        finally:
            lease.release()
