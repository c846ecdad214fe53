"""Build steps that are done once: a directory named after what it was made from."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path


def digest(key: object) -> str:
    """A short name for anything that JSON can write."""
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]


def cached(root: Path, name: str, key: object, build: Callable[[Path], None]) -> Path:
    """`<root>/<name>-<digest of key>`, built by `build(directory)` if it is not there yet.

    The directory gets its name by an atomic rename once it is complete, so a build that was cut short is
    done again.
    """
    final = root / f"{name}-{digest(key)}"
    if final.is_dir():
        return final
    partial = final.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    build(partial)
    partial.rename(final)
    return final
