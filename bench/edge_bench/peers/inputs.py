"""What is measured is made once: a file or a folder for each configuration, under the name of its digest."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

GENERATION = 1  # of what the writers of this package write: inputs of another one are made again


def cached(directory: Path, name: str, key: dict[str, Any], make: Callable[[Path], None]) -> Path:
    """The input; `make` writes it to the path that it is given, unless it is there."""
    text = json.dumps({"generation": GENERATION, **key}, sort_keys=True)
    path = directory / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}-{name}"
    if not path.exists():
        directory.mkdir(parents=True, exist_ok=True)
        partial = directory / f"{path.name}.{os.getpid()}.partial"
        try:
            make(partial)
            # A page that is not on the disk yet cannot be dropped, and a cold swap is to be cold.
            for file in [partial] if partial.is_file() else filter(Path.is_file, partial.rglob("*")):
                with file.open("rb") as written:
                    os.fsync(written.fileno())
            partial.replace(path)
        finally:
            if partial.is_dir():
                shutil.rmtree(partial)
            else:
                partial.unlink(missing_ok=True)
    return path
