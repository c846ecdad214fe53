"""`edge-runtime verify`: every hash and checksum of a bundle."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from edge_runtime.bundle import Bundle, Finding
from edge_runtime.cli.verb import Verb
from edge_runtime.errors import EdgeRuntimeError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="the bundle's directory")
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object: what was checked and found"
    )


def _record(files: int, size: int, findings: list[Finding]) -> dict[str, Any]:
    return {"files": files, "bytes": size, "findings": [asdict(finding) for finding in findings]}


def run(arguments: argparse.Namespace) -> int:
    try:
        bundle = Bundle.open(arguments.bundle)
    except EdgeRuntimeError as error:
        if arguments.json:
            print(json.dumps(_record(0, 0, [Finding(str(arguments.bundle), str(error))])))
        raise
    files = bundle.manifest.files
    size = sum(entry.bytes for entry in files.values())
    findings: list[Finding] = []
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("verifying", total=size)
        for name, count, finding in bundle.verify():
            progress.update(task, advance=count, description=name)
            if finding is not None:
                findings.append(finding)
    if arguments.json:
        print(json.dumps(_record(len(files), size, findings)))
    else:
        for finding in findings:
            print(f"edge-runtime: {finding.message}", file=sys.stderr)
        if not findings:
            print(f"{arguments.bundle}: {len(files)} files, {size:,} bytes: every hash and checksum holds")
    return 1 if findings else 0


VERB = Verb("verify", "Checks every hash and checksum of a bundle.", add_arguments, run)
