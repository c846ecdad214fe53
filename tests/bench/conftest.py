"""What the benchmarks' tests share."""

from __future__ import annotations

import pytest
from peers_toy import ANCHOR, BANK

from edge_bench import banks, synthetic
from edge_bench.bench_verb import speeds
from edge_bench.peers import measuring
from edge_pretrain.model import PAPER_ANCHORS


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PAPER_ANCHORS, "toy", ANCHOR)
    monkeypatch.setitem(banks.PAPER, "toy", BANK)
    monkeypatch.setattr(synthetic, "CONTEXT_LENGTH", ANCHOR.context_length)
    monkeypatch.setattr(synthetic, "MAX_PREFILL", 16)
    for module in (speeds, measuring):
        monkeypatch.setattr(module, "SETTLING", 0.0)
    monkeypatch.setattr(measuring, "PROMPTS", {"prefill128": 16, "prefill512": 32})
