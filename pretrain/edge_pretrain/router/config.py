"""How a static router is trained, and whether a run already has one that was trained so: decided without torch."""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

FOLDER, TABLES, REPORT = "router", "static.safetensors", "report.json"  # in a checkpoint's directory
MADE_FROM = ("config.json", "tree.safetensors", "tokenizer.json")


@dataclass(frozen=True)
class DistillConfig:
    """width, order, ngram_rows: of the student. regress: the share of the steps before the siblings join in.

    dropout: of rows, so that no text hangs on a few of them. siblings: the weight of the cross-entropy.
    """

    width: int = 128
    order: int = 2
    ngram_rows: int = 1 << 14
    steps: int = 1500
    batch: int = 512
    learning_rate: float = 5e-3
    regress: float = 0.3
    siblings: float = 1.0
    temperature: float = 0.05
    dropout: float = 0.0


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hashes(checkpoint: Path) -> dict[str, str]:
    """Of the tables and of what they were made from, by name."""
    return {TABLES: sha256(checkpoint / FOLDER / TABLES)} | {
        name: sha256(checkpoint / name) for name in MADE_FROM
    }


def is_trained(checkpoint: Path, config: DistillConfig) -> bool:
    """Whether the checkpoint has a static router of its own, trained with this configuration."""
    try:
        report = json.loads((checkpoint / FOLDER / REPORT).read_text(encoding="utf-8"))
        made = report["provenance"]["configuration"]
        return bool(made == asdict(config) and report["sha256"] == hashes(checkpoint))
    except (OSError, ValueError, KeyError, TypeError):
        return False
