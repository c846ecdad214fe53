from dataclasses import replace
from pathlib import Path

import pytest

from edge_export import matrix
from edge_export.matrix import Row, kept, main, ordered, table

ROW = Row("llama", "onnx", "portable", "f32", "ok", 2e-6, 1.0, 1_000_000, 3.0, 9e8, "abcdefabcdef")


def run(folder: Path, *more: str) -> int:
    files = ["--out", str(folder / "matrix.json"), "--table", str(folder / "matrix.md")]
    return main([*files, "--families", "openlm,qwen3", "--engines", "native", *more])


def test_rows_are_measured_and_a_second_run_of_the_same_sources_measures_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    revision = "1" * 40
    monkeypatch.setattr(matrix, "git_revision", lambda: revision)
    assert run(tmp_path) == 0
    rows = kept(tmp_path / "matrix.json")
    assert [row.family for row in rows] == sorted((row.family for row in rows), key=["openlm", "qwen3"].index)
    own = {row.quantisation: row for row in rows if row.family == "openlm"}
    assert own["f32"].status == "ok"
    assert own["f32"].max_logit_error is not None
    assert own["f32"].max_logit_error < 1e-4
    text = (tmp_path / "matrix.md").read_text()
    assert len([line for line in text.splitlines() if line.startswith("| ")]) == len(rows) + 1

    # The rows' own processes look the revision up themselves, so they are of these sources only from here on.
    files = [replace(row, revision=revision) for row in rows]
    monkeypatch.setattr(matrix, "kept", lambda _: files)
    monkeypatch.setattr(matrix, "write_sample", lambda *_: pytest.fail("made a checkpoint again"))
    capsys.readouterr()
    assert run(tmp_path) == 0
    assert f"{len(rows)} rows" in capsys.readouterr().out


def test_rows_are_by_family_and_program_whatever_the_order_of_measuring() -> None:
    own = replace(ROW, family="openlm", engine="native", flavour="paged")
    assert ordered([ROW, own, replace(own, quantisation="i4")]) == [own, replace(own, quantisation="i4"), ROW]


def test_what_was_not_measured_is_a_dash() -> None:
    line = table(
        [replace(ROW, status="refused: no", max_logit_error=None, bytes=None, revision=None)]
    ).splitlines()[-1]
    assert line == "| llama | onnx | portable | f32 | refused: no | - | 100% | - | 3 | 900 | - |"


@pytest.mark.parametrize("text", ["{", '[{"family": 1}]', "7"])
def test_a_file_that_is_no_matrix_is_refused_in_one_line(
    tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "matrix.json").write_text(text)
    assert run(tmp_path) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert (tmp_path / "matrix.json").read_text() == text
