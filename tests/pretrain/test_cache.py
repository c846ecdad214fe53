"""Build steps that are done once."""

import multiprocessing
import time
from pathlib import Path

import pytest

from edge_pretrain.cache import cached


def _slow_build(directory: Path) -> None:
    with (directory.parent / "builds").open("a") as log:
        log.write("one\n")
    time.sleep(0.3)
    (directory / "rows").write_text("all of them")


def _want(root: Path) -> None:
    assert (cached(root, "embeddings", ["corpus"], _slow_build) / "rows").read_text() == "all of them"


def test_processes_that_want_the_same_wait_for_one_build(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_want, args=(tmp_path,)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert (tmp_path / "builds").read_text() == "one\n"


def test_a_build_that_was_cut_short_is_done_again(tmp_path: Path) -> None:
    def fails(directory: Path) -> None:
        (directory / "half").touch()
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        cached(tmp_path, "embeddings", 1, fails)
    made = cached(tmp_path, "embeddings", 1, _slow_build)
    assert [path.name for path in made.iterdir()] == ["rows"]
