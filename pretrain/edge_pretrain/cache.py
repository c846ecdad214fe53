"""Build steps that are done once: a directory named after what it was made from."""

import fcntl
import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


def digest(key: object) -> str:
    """A short name for anything that JSON can write."""
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]


def cached(root: Path, name: str, key: object, build: Callable[[Path], None]) -> Path:
    """`<root>/<name>-<digest of key>`, built by `build(directory)` if it is not there yet.

    The directory gets its name by an atomic rename once it is complete, so a build that was cut short is
    done again. Of several processes that want it, one builds and the others wait for it.
    """
    final = root / f"{name}-{digest(key)}"
    if final.is_dir():
        return final
    root.mkdir(parents=True, exist_ok=True)
    with _alone(final.with_suffix(".lock")):
        if not final.is_dir():
            partial = final.with_suffix(".partial")
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir()
            build(partial)
            partial.rename(final)
    return final


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """A lock among processes, which one that dies gives back. The file stays: deleting it would let two in."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
