"""Random fetches from a whole bank in a process that may use no more than the budget and a little.

    python -m edge_bench.soak -o runs/soak

Makes the bank of the 160M anchor (4.6 GB, used again by later runs), then runs edge_pager_soak, a program without
Python (bench/cpp/pager_soak.cc), in a child control group limited to budget + 64 MB. Fails when the pager went over its
budget, a byte differed from the file, or the system killed the program.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edge_bench import _native, machine
from edge_bench.banks import PAPER, Bank, all_nodes, make_bank
from edge_bench.cgroup import MemoryGroup
from edge_bench.command import guarded, say
from edge_bench.page_cache import drop
from edge_bench.report import table
from edge_runtime.cli.main import FAILURE, Parser
from edge_runtime.errors import InvalidArgumentError, StorageError
from edge_runtime.pager import StorageKind, parse_budget

PROGRAM, SCHEMA = "edge_bench.soak", 1
SLACK = 64 * 10**6  # beside the budget: the program, its libraries and stacks, the tables of the level files
SESSIONS = 2
TOOL = Path(_native.__file__).with_name("edge_pager_soak")
SAID_EVERY = 2**29


def full_bank(directory: Path) -> Bank:
    """All blocks of the 160M anchor, made unless they are there."""
    config = PAPER["160M"]
    bank = Bank(config, directory, all_nodes(config))
    written = 0
    for path, size in make_bank(config, directory, bank.nodes):
        if written // SAID_EVERY != (written + size) // SAID_EVERY:
            say(PROGRAM, f"{path}: {written / 1e9:.1f} of {bank.blocks_bytes / 1e9:.1f} GB written")
        written += size
    return bank


def soak(bank: Bank, budget: int, fetches: int, seed: int, storage: StorageKind) -> dict[str, Any]:
    """Runs the tool on a bank; its record, with the group's figures and the exit code.

    The bank leaves the page cache first: pages that are there already are charged to whoever read them, not to the
    tool's group. Raises UnsupportedError where no group can be made, StorageError where the tool printed no record.
    """
    drop(sorted(bank.directory.glob("*.safetensors")))
    with MemoryGroup.below_own(budget + SLACK) as group:
        options = {
            "budget": budget,
            "fetches": fetches,
            "seed": seed,
            "sessions": SESSIONS,
            "storage": storage,
        }
        arguments = [text for key, value in options.items() for text in (f"--{key}", str(value))]
        done = subprocess.run(
            group.command([str(TOOL), str(bank.directory), *arguments]),
            capture_output=True,
            text=True,
            check=False,
        )
        figures = group.figures()
    try:
        record: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        killed = "the system killed it for want of memory" if figures["oom_kills"] else done.stderr.strip()
        raise StorageError(f"edge_pager_soak ended with {done.returncode} and no record: {killed}") from None
    version = group.hierarchy.version
    return record | {"exit_code": done.returncode, "group": {"version": version, **figures}}


def summary(record: dict[str, Any]) -> str:
    group, fetch = record["group"], record["fetch_ms"]
    verdict = "ok" if record["exit_code"] == 0 else f"FAILED: {record['error'] or 'see the figures'}"
    peak = "not told" if group["peak_bytes"] is None else f"{group['peak_bytes'] / 1e6:.2f} MB"
    return "\n".join(
        [
            f"fetches    {record['fetches']:,} of {record['fetches_asked']:,} in {record['seconds']:.0f} s from "
            f"{record['bank_bytes'] / 1e9:.2f} GB, {record['sessions']} sessions, seed {record['seed']}: {verdict}",
            f"budget     {record['budget_bytes']:,} bytes; resident and in flight at most {record['peak_bytes']:,}",
            f"process    VmHWM {record['vm_hwm_bytes'] / 1e6:.2f} MB; its group (version {group['version']}) at most "
            f"{peak} of {group['limit_bytes'] / 1e6:.2f} MB, {group['limit_hits']} times at the limit, "
            f"{group['oom_kills']} kills",
            f"contents   {record['layers_compared']:,} layers compared, {record['layers_wrong']} wrong",
            f"reads      {record['bytes_read'] / 1e9:.1f} GB, {record['hits']:,} hits, {record['misses']:,} misses, "
            f"{record['evictions']:,} evictions, {record['rereads']} re-reads",
            "fetch ms   " + ", ".join(f"{name} {value:.2f}" for name, value in fetch.items()),
            f"storage    {record['storage'][0]['backend']} ({record['storage'][0]['reason']})",
        ]
    )


def markdown(record: dict[str, Any]) -> str:
    group, fetch = record["group"], record["fetch_ms"]
    rows = [
        ("read by", f"`{record['storage'][0]['backend']}`: {record['storage'][0]['reason']}"),
        ("fetches", f"{record['fetches']:,} of {record['fetches_asked']:,}, {record['sessions']} sessions"),
        ("budget MB", f"{record['budget_bytes'] / 1e6:,.1f}"),
        ("resident and in flight, at most, MB", f"{record['peak_bytes'] / 1e6:,.1f}"),
        ("its group's limit MB", f"{group['limit_bytes'] / 1e6:,.1f}"),
        ("charged to it, at most, MB", "-" if group["peak_bytes"] is None else f"{group['peak_bytes'] / 1e6:,.1f}"),
        ("at the limit; killed", f"{group['limit_hits']:,} times; {group['oom_kills']}"),
        ("layers compared, wrong", f"{record['layers_compared']:,}, {record['layers_wrong']}"),
        ("read GB; hits, misses, evictions", f"{record['bytes_read'] / 1e9:,.1f}; {record['hits']:,}, "
         f"{record['misses']:,}, {record['evictions']:,}"),
        *((f"fetch ms, {name}", f"{value:,.2f}") for name, value in fetch.items()),
    ]  # fmt: skip
    load = record["load_average"]
    told = (
        f"`{record['command']}`, revision {record['revision']}, {record['seconds']:.0f} s; load {load['before'][0]} "
        f"before, {load['after'][0]} after."
    )
    return "\n\n".join([table(("160M", record["storage_asked"]), rows), told])


def run(arguments: argparse.Namespace, command: str) -> int:
    budget = parse_budget(arguments.budget)
    least = SESSIONS * PAPER["160M"].path_bytes
    if budget < least:
        raise InvalidArgumentError(f"a budget of {budget} bytes: {SESSIONS} leases at a time need {least}")
    bank = full_bank(arguments.output / "bank")
    started, load = time.time(), machine.load()
    found = soak(bank, budget, arguments.fetches, arguments.seed, arguments.storage)
    record = {
        "schema": SCHEMA,
        "tool": PROGRAM,
        "storage_asked": arguments.storage,
        **machine.provenance(arguments.output, load, started, command),
        **found,
    }
    text = json.dumps(record, indent=1) + "\n"
    for path in (arguments.output / "soak.json", *([arguments.save] if arguments.save else [])):
        path.write_text(text, encoding="utf-8")
    print(json.dumps(record, indent=1) if arguments.json else summary(record))
    return 0 if record["exit_code"] == 0 else FAILURE


def count(text: str) -> int:
    """As argparse calls it."""
    if not text.isascii() or not text.isdigit() or not 0 < int(text) < 2**63:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")
    return int(text)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = Parser(prog=PROGRAM, description="Random fetches from a 4.6 GB bank under a hard memory limit.")
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path("runs/soak"),
        metavar="DIR",
        help="for the bank, which stays, and soak.json (default: %(default)s)",
    )
    parser.add_argument(
        "--budget", default="64MB", metavar="SIZE", help="of the pager (default: %(default)s)"
    )
    parser.add_argument("--fetches", type=count, default=10_000, metavar="N", help="(default: %(default)s)")
    parser.add_argument(
        "--seed", type=count, default=1, metavar="N", help="of the paths (default: %(default)s)"
    )
    parser.add_argument("--storage", choices=("auto", "direct", "mapped", "uring"), default="auto")
    parser.add_argument("--json", action="store_true", help="print the JSON record instead of a summary")
    parser.add_argument("--save", type=Path, metavar="FILE", help="write the record there, too")
    typed = machine.command(PROGRAM, arguments)
    return guarded(parser, lambda parsed: run(parsed, typed), arguments)


if __name__ == "__main__":
    sys.exit(main())
