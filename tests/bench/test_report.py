"""Records: read, told, drawn as a page and written into a document."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from edge_bench import document
from edge_bench.html_report.page import to_html
from edge_bench.records import TOLD, markdown, read_record
from edge_runtime.cli.main import main
from edge_runtime.errors import BadFormatError, NotFoundError

DOCS = Path(__file__).parents[2] / "docs"
UNKNOWN = {
    "schema": 1,
    "tool": "another.tool",
    "command": "another --json",
    "figure_ms": 38.25,
    "nothing": None,
    "rows": [{"name": "a|b <i>", "ms": 1.5}, {"name": "c", "ms": 2}],
    "machine": {"cpu": "a CPU", "cores": 2, "memory_bytes": None, "system": "a system"},
    "versions": {"python": "3", "torch": None},
}


def written(folder: Path, record: object, name: str = "record.json") -> Path:
    path = folder / name
    path.write_text(json.dumps(record))
    return path


@pytest.mark.parametrize("path", sorted((DOCS / "records").glob("*.json")), ids=lambda path: path.stem)
def test_the_document_s_records_are_told_and_drawn(path: Path, tmp_path: Path) -> None:
    record = read_record(path)
    assert record["tool"] in TOLD
    assert record["command"] in markdown(record)
    assert main(["report", str(path), "-o", str(tmp_path / "report.html")]) == 0
    html = (tmp_path / "report.html").read_text()
    assert ("data:image/svg+xml" in html) == (TOLD[record["tool"]].draw is not None)


def test_a_page_needs_no_other_file_and_fits_a_phone(tmp_path: Path) -> None:
    path = written(tmp_path, UNKNOWN)
    assert main(["report", str(path), "-o", str(tmp_path / "report.html"), "--title", "A < B"]) == 0
    html = (tmp_path / "report.html").read_text()
    assert '<meta name="viewport"' in html
    assert not re.search(r'(?:src|href)="(?!data:|#)', html)
    assert "<title>A &lt; B</title>" in html
    assert "another --json" in html
    assert "a CPU" in html
    assert "38.25" in html


def test_cells_carry_their_column_and_text_is_escaped() -> None:
    html = to_html(markdown(UNKNOWN))
    assert '<td data-label="ms">1.5</td>' in html
    assert "a|b &lt;i&gt;" in html


def test_folders_are_searched_and_others_left_out_in_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written(tmp_path, {"name": "a manifest"}, "manifest.json")
    written(tmp_path, UNKNOWN | {"schema": 99}, "newer.json")
    (tmp_path / "run").mkdir()
    written(tmp_path / "run", UNKNOWN)
    broken = tmp_path / "broken.json"
    broken.write_text("{")
    out = tmp_path / "report.html"
    assert main(["report", str(tmp_path), str(broken), "-o", str(out)]) == 0
    error = capsys.readouterr().err
    assert "newer.json: a record of schema 99" in error
    assert "broken.json: not JSON" in error
    assert "manifest.json" not in error
    assert "1 records" in error


def test_no_record_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(tmp_path), "-o", str(tmp_path / "report.html")]) == 1
    assert "no record of a benchmark" in capsys.readouterr().err
    assert main(["report", str(tmp_path / "nowhere.json")]) == 1
    assert "nowhere.json" in capsys.readouterr().err


def test_a_record_that_lacks_something_is_one_error() -> None:
    with pytest.raises(BadFormatError, match="measure it again"):
        markdown({"schema": 1, "tool": "edge_bench.footprint"})


def test_the_document_is_what_its_records_say() -> None:
    assert document.main(["--check", *map(str, (DOCS / "benchmarks.md", DOCS / "quantisation.md"))]) == 0


def test_sections_are_written_and_prose_stays(tmp_path: Path) -> None:
    (tmp_path / "records").mkdir()
    written(tmp_path / "records", UNKNOWN, "one.json")
    text = "before\n<!-- record: one -->\nold\n<!-- end -->\nafter\n"
    new = document.documented(text, tmp_path / "records")
    assert new.startswith("before\n<!-- record: one -->\n")
    assert new.endswith("<!-- end -->\nafter\n")
    assert "38.25" in new
    assert "old" not in new
    assert document.documented(new, tmp_path / "records") == new
    path = tmp_path / "document.md"
    path.write_text(text)
    assert document.main(["--check", str(path)]) == 1
    assert document.main([str(path)]) == 0
    assert path.read_text() == new


def test_a_section_without_a_record_or_an_end_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"two\.json"):
        document.documented("<!-- record: two -->\n<!-- end -->\n", tmp_path)
    with pytest.raises(BadFormatError, match="no '<!-- end -->'"):
        document.documented("<!-- record: two -->\n<!-- record: two -->\n<!-- end -->\n", tmp_path)
