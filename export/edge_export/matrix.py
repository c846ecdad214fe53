"""`python -m edge_export.matrix`: small anchors of every family through every program, as a table.

Each row is exported in a process of its own, so that its peak memory is its own, and compared with the reference.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edge_export.source import ANCHOR_DTYPES, HF_FAMILIES, PROGRAMS

KIB = 1024
SIZES: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 320,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
}
OPTIONS: dict[str, dict[str, Any]] = {
    "gemma3_text": {"head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": 16},
}


@dataclass(frozen=True)
class Row:
    """seconds and peak_bytes: of the whole export. max_logit_error: the largest of all memories."""

    family: str
    engine: str
    flavour: str
    quantisation: str
    status: str
    max_logit_error: float | None
    agreement: float | None
    bytes: int | None
    seconds: float | None
    peak_bytes: int | None


def write_anchor(family: str, folder: Path) -> None:
    """A checkpoint with random weights, as transformers saves it."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    config = AutoConfig.for_model(family, **(SIZES | OPTIONS.get(family, {})))
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.save(str(folder / "tokenizer.json"))


def measure(family: str, engine: str, flavour: str, dtype: str, folder: Path, out: Path) -> Row:
    """One row. Failures are rows too."""
    command = [sys.executable, "-m", "edge_export.matrix", "--export", str(folder), str(out)]
    start = time.perf_counter()
    done = subprocess.run([*command, engine, flavour, dtype], capture_output=True, text=True)
    seconds = time.perf_counter() - start
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or ["it ended without a word"]
        return Row(family, engine, flavour, dtype, f"failed: {lines[-1]}", None, None, None, None, None)
    peak = int(done.stdout.strip().splitlines()[-1])
    verb = [sys.executable, "-m", "edge_runtime.cli.main", "compare", str(out), "--json"]
    compared = json.loads(subprocess.run(verb, capture_output=True, text=True).stdout)
    manifest = json.loads((out / "manifest.json").read_text(encoding="utf-8"))
    path = manifest["programs"][0]["path"]
    size = sum(entry["bytes"] for name, entry in manifest["files"].items() if name.startswith(path))
    reasons = [row["reason"] for row in compared if row["reason"]]
    if reasons:
        status = f"exported, not run: {reasons[0]}"
        return Row(family, engine, flavour, dtype, status, None, None, size, seconds, peak)
    error = max(row["max_logit_error"] for row in compared)
    agreement = min(row["agreement"] for row in compared)
    return Row(family, engine, flavour, dtype, "ok", error, agreement, size, seconds, peak)


def table(rows: list[Row]) -> str:
    """As Markdown."""
    head = [
        "family",
        "engine",
        "flavour",
        "weights",
        "status",
        "max logit error",
        "same token",
        "kB",
        "s",
        "peak MB",
    ]
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for row in rows:
        cells = [row.family, row.engine, row.flavour, row.quantisation, row.status]
        cells += [
            "-" if value is None else form.format(value / unit)
            for value, form, unit in (
                (row.max_logit_error, "{:.1e}", 1),
                (row.agreement, "{:.0%}", 1),
                (row.bytes, "{:,.0f}", 1e3),
                (row.seconds, "{:.0f}", 1),
                (row.peak_bytes, "{:,.0f}", 1e6),
            )
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


INTRODUCTION = """# The export matrix

Written by `make export-matrix`: anchors of two layers and width 64 with random weights, one a family, without memory.
The error is the largest difference of a logit from the torch reference in f32, over a prefill and then token by token;
"same token" is how often the likeliest token is the reference's. Time and peak memory are those of the whole export.

"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/export/matrix.json"))
    parser.add_argument("--table", type=Path, default=Path("docs/export-matrix.md"))
    parser.add_argument("--families", default=",".join(HF_FAMILIES))
    parser.add_argument("--dtypes", default=",".join(ANCHOR_DTYPES))
    parser.add_argument("--export", nargs=5, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.export:
        _export(*arguments.export)
        return
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        for family in arguments.families.split(","):
            folder = Path(scratch) / family
            write_anchor(family, folder)
            for engine, flavour in PROGRAMS:
                for dtype in arguments.dtypes.split(","):
                    out = Path(scratch) / f"{family}-{engine}-{flavour}-{dtype}.bundle"
                    rows.append(measure(family, engine, flavour, dtype, folder, out))
                    print(
                        f"{family} {engine} {flavour} {dtype}: {rows[-1].status}", file=sys.stderr, flush=True
                    )
                    # After each row: a run that is cut short keeps what it has measured.
                    _write(arguments.out, json.dumps([asdict(row) for row in rows], indent=2) + "\n")
                    _write(arguments.table, INTRODUCTION + table(rows) + "\n")


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def _export(folder: str, out: str, engine: str, flavour: str, dtype: str) -> None:
    """One export in this process; prints its peak memory in bytes."""
    from edge_runtime.cli.main import main as edge_runtime

    verb = ["export", folder, "-o", out, "--to", engine, "--flavour", flavour, "--anchor-dtype", dtype]
    if code := edge_runtime(verb):
        sys.exit(code)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * KIB)


if __name__ == "__main__":
    main()
