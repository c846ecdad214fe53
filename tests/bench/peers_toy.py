"""Tiny models for the peers' tests (fixture `toy`), and the run of the command on them."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from edge_bench.banks import BankConfig
from edge_bench.peers.__main__ import main
from edge_pretrain.model import AnchorConfig

# The dimensions of the tests' bundle, so that its program and embedder serve.
ANCHOR = AnchorConfig(4, 64, 2, 32, 128, 320, 96)
BANK = BankConfig("toy", 64, 2, (8, 4, 2), fanout=8)
BUILT = importlib.util.find_spec("llama_cpp") is not None and importlib.util.find_spec("gguf") is not None
needs_llama_cpp = pytest.mark.skipif(
    not BUILT,
    reason="llama-cpp-python and gguf are not installed: pip install -e '.[peers]', which builds for minutes",
)


def run(capsys: pytest.CaptureFixture[str], directory: Path, *options: str) -> dict[str, Any]:
    few = ["-r", "2", "--decode-tokens", "4", "--model", "toy", "--directory", str(directory), "--json"]
    assert main([*few, *options]) == 0
    record: dict[str, Any] = json.loads(capsys.readouterr().out)
    return record
