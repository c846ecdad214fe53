"""A bundle, opened to be measured: one engine, its answers and its bare speed.

It lives in a process of its own (`edge_bench.worker`), so that no engine is charged for the memory of another one or
of the benchmark.
"""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from edge_bench.charged import Watch, charged, peak_resident
from edge_bench.page_cache import cached_bytes, drop, whole
from edge_runtime import engines
from edge_runtime.bank import LevelReader
from edge_runtime.bundle import Bundle
from edge_runtime.engines import Context
from edge_runtime.errors import InvalidArgumentError
from edge_runtime.pager import Lease, Node
from edge_runtime.runtime import Runtime
from edge_runtime.session import Session

EVERYTHING = 2**62  # bytes, to shrink by


def first_path(bundle: Bundle) -> list[Node]:
    """A leaf that has a block, and its ancestors. REQUIRES a bank with levels beside the generic one."""
    assert bundle.manifest.memory is not None
    fanout, depth = bundle.manifest.memory.fanout, bundle.manifest.memory.levels[-1].level
    leaf = int(LevelReader(bundle.level_paths[-1][0]).nodes()[0])
    path = [(level, leaf // fanout ** (depth - level)) for level in range(1, depth + 1)]
    return [node for node in path if bundle.manifest.memory.level(node[0]) is not None]


class Answering:
    """One runtime and one session of it. Its public methods give JSON values, and are what a worker can be asked."""

    def __init__(self) -> None:
        self._runtime: Runtime | None = None
        self._session: Session | None = None
        self._context: Context | None = None
        self._lease: Lease | None = None

    def load(self, engine: str) -> dict[str, int]:
        """Loads an engine's libraries and opens nothing: the engine's own constant."""
        engines.load(engine)
        return charged().to_json() | {"peak_resident_bytes": peak_resident()}

    def open(self, bundle: str, **options: Any) -> dict[str, Any]:
        """`options` are those of `Runtime.open`. The bank leaves the page cache first, so `auto` sees a cold one."""
        files = [Path(path) for paths in Bundle.open(bundle).level_paths for path in paths]
        drop(files)
        before = charged()
        start = time.perf_counter()
        with Watch() as watch:
            self._runtime = runtime = Runtime.open(bundle, **options)
            self._session = Session(runtime)
            seconds = time.perf_counter() - start
        anchor = runtime.bundle.manifest.anchor
        return asdict(runtime.footprint) | {
            "open_ms": round(1e3 * seconds, 1),
            "context_length": anchor.context_length,
            "fetchable": runtime.pager is not None and runtime.router is not None,
            "storage": [] if runtime.pager is None else runtime.pager.storage_report(),
            "before": before.to_json(),
            "after": charged().to_json(),
            "peak": watch.peak.to_json(),
        }

    def speed(self, tokens: int, decode: bool, memory: str) -> float:
        """Seconds of a prefill of so many tokens, or of as many decoded one by one, in an empty context."""
        runtime = self._opened()
        if self._context is None:
            self._context = runtime.engine.new_context()
        handle = self._handle() if memory == "fetched" else 0
        ids = np.random.default_rng(0).integers(0, runtime.bundle.manifest.anchor.vocab_size, tokens)
        self._context.reset()
        start = time.perf_counter()
        if decode:
            for i in range(tokens):
                self._context.forward(ids[i : i + 1], handle)
        else:
            self._context.forward(ids, handle)
        return time.perf_counter() - start

    def answer(self, prompt: str, max_tokens: int, memory: str, cold: bool) -> dict[str, Any]:
        """One request's statistics. cold: nothing of the bank is in the pager's memory or in the page cache."""
        session, before = self._asked(), self._levels()
        cached = self._forget() if cold else None
        text = session.generate(prompt, max_tokens=max_tokens, temperature=0.0, memory=memory, stop=())  # type: ignore[arg-type]
        start = time.perf_counter()
        for _ in text:
            pass
        seconds = time.perf_counter() - start
        levels = {
            level: {key: now[key] - before[level][key] for key in now}
            for level, now in self._levels().items()
        }
        record = session.stats.to_json() | {
            "request_ms": 1e3 * seconds,
            "cached_bytes": cached,
            "levels": levels,
        }
        del record["text"]
        return record

    def fetch(self, prompt: str) -> float:
        """Milliseconds of a cold fetch of the prompt's blocks, with nothing else going on."""
        runtime, session = self._opened(), self._asked()
        assert runtime.pager is not None
        assert runtime.bundle.manifest.memory is not None
        memory = runtime.bundle.manifest.memory
        nodes = [node for node in session.route(prompt).nodes if memory.level(node[0]) is not None]
        self._forget()
        start = time.perf_counter()
        with runtime.pager.fetch(nodes) as lease:
            lease.wait()
            return 1e3 * (time.perf_counter() - start)

    def resident(self) -> int:
        """Bytes, now."""
        return charged().resident

    def memory(self, prompt: str, max_tokens: int, memory: str) -> dict[str, Any]:
        """What is resident after an answer, and at most during one."""
        with Watch() as watch:
            self.answer(prompt, max_tokens, memory, cold=memory == "fetched")
        steady = charged()
        peak = max(watch.peak, steady, key=lambda look: look.charged)
        return {
            "steady": steady.to_json(),
            "peak": peak.to_json(),
            "peak_resident_bytes": peak_resident(),
        }

    def _opened(self) -> Runtime:
        if self._runtime is None:
            raise InvalidArgumentError("no bundle is open")
        return self._runtime

    def _asked(self) -> Session:
        self._opened()
        assert self._session is not None
        return self._session

    def _handle(self) -> int:
        runtime = self._opened()
        assert runtime.pager is not None
        if self._lease is None or self._lease.released:
            self._asked().close()
            self._lease = runtime.pager.fetch(first_path(runtime.bundle))
            self._lease.wait()
        return self._lease.handle

    def _forget(self) -> int:
        """Empties the pager and drops the level files; bytes of them that are in the page cache all the same."""
        runtime = self._opened()
        self._asked().close()
        if self._lease is not None:
            self._lease.release()
        if runtime.pager is not None:
            runtime.pager.shrink(EVERYTHING)
        files = [Path(path) for paths in runtime.bundle.level_paths for path in paths]
        drop(files)
        return cached_bytes(whole(files))

    def _levels(self) -> dict[str, dict[str, int]]:
        pager = self._opened().pager
        levels = [] if pager is None else pager.stats()["levels"]
        return {
            str(level["level"]): {
                "hits": level["hits"],
                "misses": level["misses"],
                "bytes": level["bytes_read"],
            }
            for level in levels
        }
