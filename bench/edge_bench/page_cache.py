"""What the page cache holds of files, and how it is made to forget them or to hold them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from edge_bench._native import page_cache_share


def cached_bytes(ranges: Iterable[tuple[Path, int, int]]) -> int:
    """What the page cache holds of the (file, offset, length) ranges."""
    return round(sum(page_cache_share(str(path), at, length) * length for path, at, length in ranges))


def whole(files: Iterable[Path]) -> list[tuple[Path, int, int]]:
    return [(path, 0, path.stat().st_size) for path in files]


def drop(files: Sequence[Path]) -> None:
    """Has the page cache forget the files, but for pages that somebody maps. REQUIRES that they are on the disk."""
    ranges = whole(files)
    before = cached_bytes(ranges)
    while before > 0:
        for path in files:
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(descriptor)
        # Pages on their way between lists of the system are not dropped at once.
        left = cached_bytes(ranges)
        if left >= before:
            return
        before = left


def warm(files: Iterable[Path]) -> None:
    """Has the page cache hold the files, as far as there is memory."""
    for path in files:
        with path.open("rb") as file:
            while file.read(2**22):
                pass
