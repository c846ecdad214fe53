"""What a figure depends on: the machine, the versions, the revision, the command."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = (
    "edge-runtime",
    "numpy",
    "safetensors",
    "mmap-ninja",
    "torch",
    "executorch",
    "onnxruntime",
    "onnxruntime-genai",
    "llama-cpp-python",
)
QUEUE = ("rotational", "scheduler", "read_ahead_kb", "max_sectors_kb", "nr_requests")


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return None


def _field(path: Path, key: str) -> str | None:
    lines = (_text(path) or "").splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(key)), None)


def disk(directory: Path) -> dict[str, Any]:
    """The file system that a directory lies on, and its device's queue."""
    number = directory.stat().st_dev
    device = f"{os.major(number)}:{os.minor(number)}"
    record: dict[str, Any] = {"filesystem": None, "device": None}
    for line in (_text(Path("/proc/self/mountinfo")) or "").splitlines():
        fields = line.split()
        if fields[2] == device:
            kind, source = fields[fields.index("-") + 1 : fields.index("-") + 3]
            record = {"filesystem": kind, "device": source}
    block = Path("/sys/dev/block") / device
    queue = next((q for q in (block / "queue", block.resolve().parent / "queue") if q.is_dir()), None)
    if queue is not None:
        record |= {key: _text(queue / key) for key in QUEUE}
    return record


def load() -> list[float]:
    """The load averages: who else was at work."""
    return [round(value, 2) for value in os.getloadavg()]


def machine(directory: Path) -> dict[str, Any]:
    memory = _field(Path("/proc/meminfo"), "MemTotal")
    return {
        "cpu": _field(Path("/proc/cpuinfo"), "model name") or platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": int(memory.split()[0]) * 1024 if memory else None,
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "disk": disk(directory),
    }


def versions() -> dict[str, str | None]:
    found: dict[str, str | None] = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = None
    return found


def revision() -> str | None:
    """Of the sources that run, with "+" where they were changed since; None outside a git checkout."""
    directory = Path(__file__).resolve().parent
    try:
        head, changes = (
            subprocess.run(
                ["git", "-C", str(directory), *command], capture_output=True, text=True, check=True
            ).stdout.strip()
            for command in (["rev-parse", "--short=12", "HEAD"], ["status", "--porcelain", "-uno"])
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return head + ("+" if changes else "")


def command(module: str, arguments: Sequence[str] | None) -> str:
    """What to type to measure again."""
    return shlex.join(["python", "-m", module, *(sys.argv[1:] if arguments is None else arguments)])


def provenance(directory: Path, before: list[float], started: float, command: str) -> dict[str, Any]:
    """What a record's figures depend on, its last keys. before, started: `load()` and `time.time()` at the beginning.

    directory: on the disk that was measured. seconds: until now.
    """
    return {
        "machine": machine(directory),
        "load_average": {"before": before, "after": load()},
        "versions": versions(),
        "revision": revision(),
        "command": command,
        "seconds": round(time.time() - started, 1),
    }
