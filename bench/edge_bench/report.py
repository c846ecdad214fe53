"""The record of iobench as markdown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edge_bench import aims
from edge_bench.records import origin

RATIOS = {
    "cold_over_raw": "best raw O_DIRECT reader",
    "cold_over_raw_fresh": "pager and raw reader both into fresh memory",
    "cold_over_memmap": "np.memmap copy",
    "cold_over_mmap_ninja": "mmap-ninja",
    "cold_over_safetensors": "safetensors get_slice",
    "cold_over_torch_load": "torch.load(mmap=True)",
    "verify_share": "itself, unverified (time over time)",
}


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def times_table(rows: Sequence[dict[str, Any]]) -> str:
    head = ("reader", "MB/s", "ms", "quartiles", "spread", "device bytes / byte")
    body = []
    for row in rows:
        read = row["device_bytes_per_byte"]
        name = row["name"] + (" (not cold!)" if row["cold"] is False else "")
        body.append(
            (
                name,
                f"{row['mb_per_s']:,.0f}",
                f"{row['median_ms']:,.2f}",
                f"{row['q1_ms']:,.2f} to {row['q3_ms']:,.2f}",
                f"{row['spread_percent']:.0f}%",
                "-" if read is None else f"{read:.2f}",
            )
        )
    return table(head, body)


def ratio_table(ratios: dict[str, dict[str, Any]]) -> str:
    head = ("key", "against", "ratio", "quartiles of the pairs", "pairs", "aim")
    body = [
        (
            f"`{key}`",
            f"{text}: {r['over']}",
            f"**{r['median']:.2f}**",
            f"{r['q1']:.2f} to {r['q3']:.2f}",
            r["pairs"],
            aims.told(aims.KEYS.get(key), r["median"]),
        )
        for key, text in RATIOS.items()
        for r in [ratios[key]]
    ]
    return table(head, body)


def sweep_table(sweep: Sequence[dict[str, Any]]) -> str:
    """MB/s by chunk and depth, one line an engine and chunk."""
    depths = sorted({row["depth"] for row in sweep})
    speed = {(row["engine"], row["chunk_bytes"], row["depth"]): row["mb_per_s"] for row in sweep}
    lines = sorted({(engine, chunk) for engine, chunk, _ in speed})
    body = [
        (f"{engine}, {chunk >> 10} KiB", *(f"{speed[engine, chunk, depth]:,.0f}" for depth in depths))
        for engine, chunk in lines
    ]
    return table(("engine, chunk", *(str(depth) for depth in depths)), body)


def config_section(name: str, config: dict[str, Any]) -> str:
    sizes = " / ".join(f"{size / 1e6:.2f}" for size in config["block_bytes"].values())
    lease, switch = config["warm_lease"], config["sibling_switch"]
    parts = [
        f"## {name}: blocks of {sizes} MB, {config['path_bytes'] / 1e6:.2f} MB a path",
        "### Cold: one path",
        ratio_table(config["ratios"]),
        times_table(config["cold"]),
        "### In the page cache, not in the pager's memory",
        times_table(config["warm"]),
        "### All resident: fetch, wait, release",
        table(
            ("from", "median us", "p90", "p99"),
            [
                (where, *(f"{lease[key][q]:.2f}" for q in ("median", "p90", "p99")))
                for where, key in (("Python", "python_us"), ("C++", "cpp_us"))
            ],
        ),
        f"### Switch to a sibling, budget of one path{'' if switch['exact'] else ' (bytes not exact!)'}",
        table(
            ("within", "bytes read", "expected", "ms"),
            [
                (
                    key.replace("_", " "),
                    f"{value:,}",
                    f"{switch['expected'][key]:,}",
                    f"{switch['ms'][key]:.2f}",
                )
                for key, value in switch["bytes"].items()
            ],
        ),
        "### Raw reader, MB/s by reads under way",
        sweep_table(config["raw_sweep"]),
    ]
    for level, rows in config.get("single_blocks", {}).items():
        parts += [
            f"### Cold: one block of {level}, {config['block_bytes'][level] / 1e6:.2f} MB",
            times_table(rows),
        ]
    if "lanes" in config:
        parts += ["### Cold: one path, by lanes of the pager", times_table(config["lanes"])]
    return "\n\n".join(parts)


def markdown(record: dict[str, Any]) -> str:
    machine, load = record["machine"], record["load_average"]
    disk = machine["disk"]
    found = origin(record)
    backends = record["configs"][next(iter(record["configs"]))]["backends"]
    chosen = "; ".join(
        f"{state}: {b['pager auto']['backend']} ({b['pager auto']['reason']})"
        for state, b in backends.items()
    )
    head = [
        "# iobench",
        f"`{record['command']}`, revision {record['revision']}, {record['seconds']:.0f} s.",
        f"{disk['filesystem']} on {disk['device']}, read-ahead {disk.get('read_ahead_kb')} KiB; load "
        f"{load['before'][0]} before, {load['after'][0]} after.",
        found,
        f"Medians of interleaved rounds, MB = 10^6 bytes. `auto` chose, {chosen}.",
    ]
    return "\n\n".join(head + [config_section(name, c) for name, c in record["configs"].items()]) + "\n"
