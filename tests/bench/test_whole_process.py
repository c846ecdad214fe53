"""The figures of a process that answers, on a bundle of the native engine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edge_bench.whole_process import main
from edge_export.bundle import export_bundle
from edge_export.source import ExportConfig, Source


def test_what_a_process_holds_adds_up(
    tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "tiny.bundle"
    export_bundle(
        Source.open(tiny_checkpoint),
        out,
        ExportConfig("tiny", "f32", 16, None, ("static",)),
        lambda step: None,
    )
    assert main([str(out), "--tokens", "4", "--json"]) == 0
    [row] = json.loads(capsys.readouterr().out)
    assert row["process"] == "edge-runtime run"
    parts = sum(row[f"{part}_bytes"] for part in ("anchor", "kv", "fetched", "rest"))
    assert parts == row["resident_bytes"]
    assert row["kv_bytes"] > 0
    assert row["fetched_bytes"] > 0
    assert main([str(out), "--tokens", "4"]) == 0
    assert "edge-runtime" in capsys.readouterr().out


def test_a_bundle_of_another_engine_is_one_line(
    tiny_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tiny_bundle)]) == 1
    assert "not a bundle of the native engine" in capsys.readouterr().err
