"""The picture of decode beside what reading the weights allows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edge_bench.peers.roofline import main


def record(cpu: str = "A", tool: str = "edge_bench.peers") -> dict[str, Any]:
    row = {
        "peer": "native",
        "model": "160M",
        "quantisation": "i4",
        "program_bytes": 92_000_000,
        "decode": 300.0,
    }
    rows = [
        row,
        row | {"peer": "llama.cpp", "decode": 130.0},
        row | {"peer": "onnxruntime-genai", "decode": None},
    ]
    read = {"median": 3e10, "least": 2e10, "most": 4e10}
    return {
        "schema": 1, "tool": tool, "threads": 2, "machine": {"cpu": cpu}, "rows": rows, "read_bytes_per_s": read,
    }  # fmt: skip


def test_records_of_one_machine_are_one_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [tmp_path / "a.json", tmp_path / "b.json"]
    for path in paths:
        path.write_text(json.dumps(record()))
    out = tmp_path / "roofline.png"
    assert main([*map(str, paths), "-o", str(out)]) == 0
    assert out.read_bytes().startswith(b"\x89PNG")
    assert capsys.readouterr().out == f"wrote {out}\n"


@pytest.mark.parametrize(
    ("other", "part"),
    [
        (record("B"), "several machines"),
        (record(tool="edge_bench.iobench"), "a record of edge_bench.iobench"),
    ],
)
def test_what_does_not_belong_together_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], other: dict[str, Any], part: str
) -> None:
    for name, one in (("a.json", record()), ("b.json", other)):
        (tmp_path / name).write_text(json.dumps(one))
    arguments = [str(tmp_path / name) for name in ("a.json", "b.json")]
    assert main([*arguments, "-o", str(tmp_path / "x.png")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert part in line
    assert not (tmp_path / "x.png").exists()
