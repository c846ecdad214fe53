"""The pager's Python face, over level files written for the purpose."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from edge_runtime import _core
from edge_runtime.errors import (
    BlockedError,
    BusyError,
    CancelledError,
    ChecksumError,
    EdgeRuntimeError,
    InvalidArgumentError,
    NeverFitsError,
    NotFoundError,
)
from edge_runtime.pager import Lease, Pager, ThrottledDevice

FANOUT, WIDTH, LAYERS, ROWS = 4, 64, 3, (24, 16, 8)  # rows a block of levels 0, 1 and 2
PATH = [(1, 2), (2, 9)]


@pytest.fixture(scope="module")
def levels(tmp_path_factory: pytest.TempPathFactory) -> list[list[str]]:
    directory = tmp_path_factory.mktemp("bank")
    random = np.random.default_rng(5)
    paths = []
    for level, rows in enumerate(ROWS):
        nodes = FANOUT**level
        path = str(directory / f"level{level}.safetensors")
        writer = _core.LevelWriter(path, level, FANOUT, "f32", WIDTH, rows, list(range(LAYERS)), nodes)
        for node in range(nodes):
            writer.append(node, random.standard_normal((LAYERS, 3, rows, WIDTH)).astype(np.float32))
        writer.finish()
        paths.append([path])
    return paths


@pytest.fixture(scope="module")
def blocks(levels: list[list[str]]) -> list[np.ndarray]:
    """The blocks of each level as stock safetensors reads them."""
    return [load_file(paths[0])["blocks"] for paths in levels]


@pytest.fixture
def pager(levels: list[list[str]]) -> Pager:
    return Pager(levels, "10MB", storage="direct")


def stride(blocks: list[np.ndarray], *levels: int) -> int:
    return sum(blocks[level].shape[1] for level in levels)


def wait_until(done: object) -> None:
    deadline = time.monotonic() + 60
    while not done():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_views_are_the_bytes_of_the_file_in_place(pager: Pager, blocks: list[np.ndarray]) -> None:
    with pager.fetch(PATH) as lease:
        lease.wait()
        for level, node in PATH:
            view = lease.view(level)
            assert view.dtype == np.uint8
            np.testing.assert_array_equal(view, blocks[level][node])
            assert not view.flags.writeable
            assert memoryview(view).readonly
            assert memoryview(view).nbytes == blocks[level].shape[1]
        del view  # it would keep the blocks beyond the lease
        with pager.fetch(PATH) as same:
            assert np.shares_memory(same.view(1), lease.view(1))
        assert lease.nodes() == PATH
        assert lease.bytes_read == stride(blocks, 1, 2)
        assert lease.fetch_ns is not None
        assert lease.fetch_ns > 0
        assert 0 <= lease.stall_ns <= pager.stats()["stall_ns"]
        assert pager.stats()["leased_bytes"] == stride(blocks, 1, 2)
    assert pager.stats()["leased_bytes"] == 0


def test_a_lease_tells_what_was_waited_for(levels: list[list[str]]) -> None:
    slow = ThrottledDevice(1e9, latency_us=2e4)  # a request takes longer than it takes to ask for its bytes
    pager = Pager(levels, "10MB", ("direct", slow))
    with pager.fetch(PATH) as lease:
        lease.wait()
    assert 0 < lease.stall_ns == pager.stats()["stall_ns"]
    with pager.fetch([(1, 1), (2, 5)]) as other:
        wait_until(lambda: other.fetch_ns is not None)
        other.wait()
        assert other.stall_ns == 0
        assert other.bytes_read > 0


def test_a_view_keeps_its_block_beyond_the_lease(pager: Pager, blocks: list[np.ndarray]) -> None:
    with pager.fetch(PATH) as lease:
        view = lease.view(2, node=9)
    pager.shrink(10**9)
    np.testing.assert_array_equal(view, blocks[2][9])
    assert pager.stats()["resident_bytes"] == stride(blocks, 1, 2)
    del view
    assert pager.shrink(10**9) == stride(blocks, 1, 2)


def test_a_released_lease_says_so(pager: Pager) -> None:
    lease = pager.fetch(PATH)
    lease.wait()
    lease.release()
    lease.release()
    assert lease.released
    assert lease.fetch_ns is not None
    for use in (lease.wait, lambda: lease.view(1), lease.nodes, lambda: pager.fetch(PATH, lease)):
        with pytest.raises(CancelledError):
            use()


def test_a_switch_reads_what_differs_and_needs_no_double_budget(
    levels: list[list[str]], blocks: list[np.ndarray]
) -> None:
    budget = stride(blocks, 1, 2)
    pager = Pager(levels, budget, storage="direct")
    lease = pager.fetch(PATH)
    lease.wait()
    lease = pager.fetch([(1, 2), (2, 10)], replacing=lease)
    assert lease.bytes_read == stride(blocks, 2)
    view = lease.view(2)
    with pytest.raises(BusyError, match="read"):  # the view is still in use
        pager.fetch(PATH, replacing=lease)
    del view
    lease = pager.fetch(PATH, replacing=lease)
    np.testing.assert_array_equal(lease.view(2), blocks[2][9])
    assert pager.stats()["peak_bytes"] == budget


def test_refusals_name_what_would_do(levels: list[list[str]], blocks: list[np.ndarray]) -> None:
    pager = Pager(levels, stride(blocks, 1), blocked=[(1, 3)], removed=[(2, 0)])
    with pytest.raises(NeverFitsError) as refused:
        pager.fetch(PATH)
    assert refused.value.required_bytes == stride(blocks, 1, 2)
    for error, nodes in (
        (BlockedError, [(2, 12)]),
        (BlockedError, [(2, 0)]),
        (NotFoundError, [(3, 0)]),
        (InvalidArgumentError, [(1, 4)]),
        (InvalidArgumentError, [(1, 0), (1, 0)]),
    ):
        for call in (pager.fetch, pager.prefetch):
            with pytest.raises(error):
                call(nodes)
    with pager.fetch([(1, 0)]), pytest.raises(BusyError):
        pager.fetch([(1, 1)])


def test_a_hint_is_read_without_a_lease(pager: Pager, blocks: list[np.ndarray]) -> None:
    assert pager.prefetch(PATH) == stride(blocks, 1, 2)
    wait_until(lambda: pager.stats()["resident_bytes"] == stride(blocks, 1, 2))
    with pager.fetch(PATH) as lease:
        assert lease.bytes_read == 0
        np.testing.assert_array_equal(lease.view(1), blocks[1][2])
    stats = pager.stats()
    assert stats["prefetches"] == stats["prefetch_hits"] == 2


def test_pins_are_loaded_and_stay(levels: list[list[str]], blocks: list[np.ndarray]) -> None:
    pinned = stride(blocks, 0, 2)
    pager = Pager(levels, "10MB", pinned=[0, (2, 5)])
    wait_until(lambda: pager.stats()["resident_bytes"] == pinned)
    assert pager.shrink(10**9) == 0
    assert pager.stats()["pinned_bytes"] == pinned
    with pytest.raises(NeverFitsError) as refused:
        Pager(levels, pinned, pinned=[0, (2, 5)])
    assert refused.value.required_bytes == pinned + stride(blocks, 1, 2)
    with pytest.raises(NotFoundError):
        Pager(levels, "10MB", pinned=[7])


def test_stats_tell_levels_and_latencies(pager: Pager, blocks: list[np.ndarray]) -> None:
    for _ in range(2):
        with pager.fetch(PATH) as lease:
            lease.wait()
    stats = pager.stats()
    assert [level["level"] for level in stats["levels"]] == [0, 1, 2]
    assert stats["levels"][0]["bytes_read"] == 0
    for level in (1, 2):
        assert stats["levels"][level] == {
            "level": level,
            "resident_bytes": stride(blocks, level),
            "hits": 1,
            "misses": 1,
            "bytes_read": stride(blocks, level),
            "evictions": 0,
        }
    latency = stats["fetch_latency_ns"]
    assert latency["count"] == 1
    assert 0 < latency["p50"] <= latency["max"]
    assert stats["stall_latency_ns"]["count"] <= 1
    assert stats["stall_ns"] >= stats["stall_latency_ns"]["max"]


def test_damage_is_an_error_that_names_the_place(
    levels: list[list[str]], blocks: list[np.ndarray], tmp_path: Path
) -> None:
    copy = tmp_path / "damaged.safetensors"
    content = bytearray(Path(levels[1][0]).read_bytes())
    offset = bytes(content).index(blocks[1][2].tobytes())
    content[offset + 100] ^= 1
    copy.write_bytes(content)
    for storage in ("direct", "mapped"):
        pager = Pager([[copy]], "10MB", storage=storage)  # type: ignore[arg-type]
        with pytest.raises(ChecksumError) as damage, pager.fetch([(1, 2)]) as lease:
            lease.wait()
        for part in (str(copy), "level 1", "node 2", f"offset {offset}", "layer 0"):
            assert part in str(damage.value)
        with pager.fetch([(1, 1)]) as lease:
            np.testing.assert_array_equal(lease.view(1), blocks[1][1])


def test_threads_share_a_pager(levels: list[list[str]], blocks: list[np.ndarray]) -> None:
    pager = Pager(levels, 3 * stride(blocks, 1, 2), storage="direct")
    served = []

    def work(seed: int) -> None:
        random = np.random.default_rng(seed)
        for leaf in random.integers(FANOUT**2, size=40).tolist():
            try:
                with pager.fetch([(1, leaf // FANOUT), (2, leaf)]) as lease:
                    for layer in range(LAYERS):
                        lease.wait(layer)
                    np.testing.assert_array_equal(lease.view(2), blocks[2][leaf])
                    served.append(leaf)
            except BusyError:
                pass

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(served) > 40
    assert pager.stats()["leases"] == 0


def test_a_release_ends_the_waits_of_other_threads(pager: Pager) -> None:
    """Wherever it falls: the wait ends, with all layers or with CancelledError."""
    outcomes = []

    def wait(lease: Lease) -> None:
        try:
            lease.wait()
            outcomes.append("served")
        except EdgeRuntimeError as error:
            outcomes.append(error.code)

    for _ in range(50):
        pager.shrink(10**9)
        lease = pager.fetch(PATH)
        waiter = threading.Thread(target=wait, args=(lease,))
        waiter.start()
        lease.release()
        waiter.join()
    assert len(outcomes) == 50
    assert set(outcomes) <= {"served", "cancelled"}
    assert pager.stats()["leases"] == 0
