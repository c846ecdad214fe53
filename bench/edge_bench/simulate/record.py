"""Results on the disk: results.json with everything that they depend on, and a picture."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edge_bench import machine

SCHEMA = 1


def complete(
    kind: str, result: dict[str, Any], configuration: dict[str, Any], command: str
) -> dict[str, Any]:
    """The result, and beside it configuration, seed, machine, versions and revision."""
    return {
        "schema": SCHEMA,
        "tool": "edge-runtime simulate",
        "kind": kind,
        **result,
        "configuration": configuration,
        "machine": machine.machine(Path.cwd()),
        "load_average": machine.load(),
        "versions": machine.versions(),
        "revision": machine.revision(),
        "command": command,
    }


def write(
    record: dict[str, Any], directory: Path, draw: Callable[[dict[str, Any], Path], None]
) -> list[Path]:
    """results.json and KIND.png."""
    directory.mkdir(parents=True, exist_ok=True)
    files = [directory / "results.json", directory / f"{record['kind']}.png"]
    files[0].write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    draw(record, files[1])
    return files
