"""`edge-runtime compare` on the tiny bundle: its table, and what it says where it cannot compare."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from edge_runtime.cli.main import main

REFERENCE = "reference.safetensors"


@pytest.fixture
def copy(tiny_bundle: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "copy.bundle"
    shutil.copytree(tiny_bundle, folder)
    return folder


def change(folder: Path, **values: Any) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | values))


def one_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["compare", str(folder)]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.strip().splitlines()) == 1
    assert "internal error" not in err
    return err


def test_the_table_has_a_row_a_program_and_memory(
    tiny_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", str(tiny_bundle)]) == 0
    rows = [line for line in capsys.readouterr().out.splitlines() if "executorch" in line]
    assert [name for row in rows for name in ("generic", "none", "path") if name in row] == [
        "generic",
        "none",
        "path",
    ]
    assert all("paged" in row and "f32" in row and "100.0%" in row for row in rows)


def test_json_has_figures(tiny_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", str(tiny_bundle), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {row["memory"] for row in rows} == {"generic", "none", "path"}
    assert all(0 < row["max_logit_error"] < 1e-4 and row["agreement"] == 1 for row in rows)


def test_a_program_that_cannot_run_is_a_row_with_the_reason(
    copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    program = json.loads((copy / "manifest.json").read_text())["programs"][0]
    change(copy, programs=[program | {"engine": "other"}, program])
    assert main(["compare", str(copy), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [("no engine 'other'" in (row["reason"] or "")) for row in rows] == [True] * 3 + [False] * 3
    change(copy, programs=[program | {"engine": "other"}])
    assert main(["compare", str(copy)]) == 1
    assert "no engine 'other'" in " ".join(capsys.readouterr().out.split())


def test_a_bundle_without_a_reference(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = json.loads((copy / "manifest.json").read_text())
    del manifest["reference"]
    (copy / "manifest.json").write_text(json.dumps(manifest))
    assert f"{copy}: it has no reference" in one_line(copy, capsys)


def test_threads_out_of_range(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", str(copy), "--threads", "-2"]) == 1
    assert capsys.readouterr().err == "edge-runtime: threads -2: it must be 1 to 1024\n"


def _cut(path: Path) -> None:
    path.write_bytes(b"\xff" * path.stat().st_size)


def _without(name: str) -> Any:
    def damage(path: Path) -> None:
        tensors = load_file(path)
        del tensors[name]
        save_file(tensors, path)

    return damage


def _narrow(path: Path) -> None:
    tensors = load_file(path)
    save_file({name: t[:, :7] if name.startswith("logits") else t for name, t in tensors.items()}, path)


def _foreign(path: Path) -> None:
    tensors = load_file(path)
    save_file(tensors | {"tokens": np.full_like(tensors["tokens"], 1 << 40)}, path)


@pytest.mark.parametrize(
    "damage", [_cut, _without("tokens"), _without("nodes.path"), _narrow, _foreign],
    ids=["bytes", "no tokens", "no nodes", "narrow", "foreign tokens"],
)  # fmt: skip
def test_a_damaged_reference(copy: Path, capsys: pytest.CaptureFixture[str], damage: Any) -> None:
    path = copy / REFERENCE
    damage(path)
    files = json.loads((copy / "manifest.json").read_text())["files"]
    change(copy, files=files | {REFERENCE: files[REFERENCE] | {"bytes": path.stat().st_size}})
    assert f"{path}: damaged" in one_line(copy, capsys)
