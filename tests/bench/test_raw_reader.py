"""The raw reader reads what the files hold, with every engine, and refuses what it cannot do."""

import os
from pathlib import Path

import numpy as np
import pytest

from edge_bench._native import RawReader, has_io_uring, page_cache_share
from edge_bench.page_cache import cached_bytes, drop, warm, whole
from edge_runtime.errors import InvalidArgumentError, NotFoundError, StorageError

PAGE = 16384
ENGINES = ["pread", *(["io_uring"] if has_io_uring() else [])]


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / "a", tmp_path / "b"]
    for seed, path in enumerate(paths):
        path.write_bytes(np.random.default_rng(seed).bytes(20 * PAGE))
    return paths


def opened(
    files: list[Path], engine: str, chunk: int = PAGE, depth: int = 1, fresh: bool = False
) -> RawReader:
    return RawReader([str(path) for path in files], engine, chunk, depth, fresh, 16 * PAGE)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("fresh", [False, True])
@pytest.mark.parametrize(("chunk", "depth"), [(PAGE, 1), (PAGE, 4), (4 * PAGE, 3), (64 * PAGE, 2)])
def test_it_reads_the_files_bytes(
    files: list[Path], engine: str, fresh: bool, chunk: int, depth: int
) -> None:
    reader = opened(files, engine, chunk, depth, fresh)
    contents = [path.read_bytes() for path in files]
    for ranges in ([(0, 0, 7 * PAGE), (1, 3 * PAGE, 9 * PAGE)], [(1, 0, PAGE)]):
        wanted = b"".join(contents[file][at : at + length] for file, at, length in ranges)
        assert reader.read(ranges).tobytes() == wanted


@pytest.mark.parametrize("engine", ENGINES)
def test_a_file_that_ends_is_an_error(files: list[Path], engine: str) -> None:
    with pytest.raises(StorageError):
        opened(files, engine, depth=2).read([(0, 18 * PAGE, 4 * PAGE)])


@pytest.mark.parametrize("ranges", [[(2, 0, PAGE)], [(0, 1, PAGE)], [(0, 0, 100)], [(0, 0, 17 * PAGE)]])
def test_ranges_that_it_does_not_take(files: list[Path], ranges: list[tuple[int, int, int]]) -> None:
    with pytest.raises(InvalidArgumentError):
        opened(files, "pread").read(ranges)


@pytest.mark.parametrize(
    ("engine", "chunk", "depth"), [("aio", PAGE, 1), ("pread", 100, 1), ("pread", PAGE, 0)]
)
def test_settings_that_there_are_not(files: list[Path], engine: str, chunk: int, depth: int) -> None:
    with pytest.raises(InvalidArgumentError):
        opened(files, engine, chunk, depth)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="nowhere"):
        opened([tmp_path / "nowhere"], "pread")


def test_the_page_cache_is_warm_and_then_cold(files: list[Path]) -> None:
    warm(files)
    assert cached_bytes(whole(files)) == 40 * PAGE
    for path in files:
        with path.open("rb") as file:
            os.fsync(file.fileno())  # a page that is not on the disk yet cannot be dropped
    drop(files)
    assert cached_bytes(whole(files)) == 0


def test_the_page_cache_of_what_is_not_there(files: list[Path]) -> None:
    with pytest.raises(NotFoundError):
        page_cache_share(str(files[0]) + "x", 0, 1)
    with pytest.raises(InvalidArgumentError, match="has no"):
        page_cache_share(str(files[0]), 0, 21 * PAGE)
