"""Documents split into sections: what is a title, a heading, a piece; and what a folder may hold."""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
from matplotlib.backends.backend_pdf import PdfPages

from edge_pretrain.teach.documents import Document, read_folder, sections, split
from edge_pretrain.teach.examination import Asked, read_asked
from edge_pretrain.teach.pages import main as pages
from edge_pretrain.teach.pages import write_pages
from edge_runtime.cli.main import main
from edge_runtime.errors import BadFormatError, EdgeRuntimeError


def of(text: str) -> list[tuple[str, tuple[str, ...]]]:
    return [(one.heading, one.pieces) for one in sections(Document("a", "", text))]


def test_a_title_and_the_first_sentence_head_each_piece() -> None:
    text = "Orvel\nOrvel is an island. It has 3 houses. Its saint\nis Anna.\n\n# Tam Reed\n\nTam Reed is a poet.\n"
    assert of(text) == [
        ("Orvel. Orvel is an island.", ("It has 3 houses.", "Its saint is Anna.")),
        ("Tam Reed. Tam Reed is a poet.", ()),
    ]
    section = sections(Document("a", "", text))[0]
    assert section.texts == [f"{section.heading} {piece}" for piece in section.pieces]
    assert sections(Document("a", "", text))[1].texts == ["Tam Reed. Tam Reed is a poet."]


def test_a_text_without_titles_goes_by_paragraphs() -> None:
    assert of("Mr. X sings. He is 3.5 feet tall.\n\nA cat sat. It purred.") == [
        ("Mr. X sings.", ("He is 3.5 feet tall.",)),
        ("A cat sat.", ("It purred.",)),
    ]


def test_a_folder_is_read_by_name_and_kind(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "b.txt").write_text("B is b. It is.")
    (tmp_path / "sub/a.MD").write_text("# A\nA is a.")
    (tmp_path / "c.jsonl").write_text(json.dumps({"text": "C is c."}) + "\n" + json.dumps("D is d.") + "\n")
    (tmp_path / "empty.txt").write_text(" \n")
    (tmp_path / "x.png").write_bytes(b"\xff")
    documents = read_folder(tmp_path)
    assert [one.name for one in documents] == ["b.txt", "c.jsonl", "sub/a.MD"]
    assert [one.heading for one in split(documents)] == ["B is b.", "C is c.", "D is d.", "A. A is a."]


def test_the_text_of_a_pdf_s_pages_is_read(tmp_path: Path) -> None:
    pages = ["Hafnium is a transition metal.", "Its atomic number is 72."]
    with PdfPages(tmp_path / "a.pdf") as pdf:
        for page in pages:
            figure = plt.figure()
            figure.text(0.1, 0.5, page)
            pdf.savefig(figure)
            plt.close(figure)
    [document] = read_folder(tmp_path)
    assert document.text.split() == " ".join(pages).split()


def test_a_pdf_is_read_through_pypdf(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pypdf = pytest.importorskip("pypdf")
    writer = pypdf.PdfWriter()
    writer.add_blank_page(72, 72)
    writer.write(tmp_path / "a.pdf")
    with pytest.raises(EdgeRuntimeError, match="no text"):
        read_folder(tmp_path)
    (tmp_path / "a.pdf").write_bytes(b"%PDF-1.4 cut")
    with pytest.raises(EdgeRuntimeError, match=r"a\.pdf: not a readable PDF"):
        read_folder(tmp_path)
    assert not caplog.records


@pytest.mark.parametrize(
    ("name", "data", "part"),
    [
        ("a.txt", b"\xff\xfe\x00", "not UTF-8"),
        ("a.jsonl", b'{"text": "x"}\n{"no": 1}\n', "line 2"),
        ("a.png", b"", "no documents"),
        ("a.txt", b"  ", "no text"),
    ],
)
def test_what_cannot_be_read_is_said(tmp_path: Path, name: str, data: bytes, part: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(EdgeRuntimeError, match=part):
        read_folder(tmp_path)
    with pytest.raises(EdgeRuntimeError, match="no such folder"):
        read_folder(tmp_path / "none")


def test_lines_of_json_end_at_line_feeds_alone(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "A\u2028B."}\n\n"C."\n', encoding="utf-8")
    (document,) = read_folder(tmp_path)
    assert document.text == "A\u2028B.\n\nC."


def test_half_a_character_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "a\\ud800b"}\n')
    assert read_folder(tmp_path)[0].text == "a\ufffdb"


def test_a_byte_order_mark_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfA title\n")
    assert read_folder(tmp_path)[0].text == "A title\n"


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--other-questions", "q"], "--other-questions are asked beside --questions"),
        (["--into", "leaf", "--rows", "8"], "--rows is of a personal level"),
        (["--learning-rate", "inf"], "both finite"),
        (["--penalty", "nan"], "both finite"),
    ],
)
def test_options_that_nothing_would_read_are_refused(
    tiny_bundle: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], part: str
) -> None:
    assert main(["teach", str(tiny_bundle), "folder", "-o", "out", *arguments]) == 1
    assert part in capsys.readouterr().err


def test_questions_are_text(tmp_path: Path) -> None:
    path = tmp_path / "q.jsonl"
    path.write_bytes(b"\xff")
    with pytest.raises(BadFormatError, match="not UTF-8"):
        read_asked(path)
    path.write_text('{"prompt": "A\u2028B", "answer": "C"}\n\n', encoding="utf-8")
    assert read_asked(path) == [Asked("A\u2028B", "C")]


def test_pages_hold_the_facts_and_none_of_the_questions(tmp_path: Path) -> None:
    write_pages(tmp_path / "pages", 2, 2, 3, seed=4)
    found = split(read_folder(tmp_path / "pages"))
    assert len(found) == 4
    assert {len(section.pieces) for section in found} == {9}
    asked = [json.loads(line) for line in (tmp_path / "pages.questions.jsonl").read_text().splitlines()]
    assert len(asked) == 4 * 9
    texts = [text for section in found for text in section.texts]
    for question in asked:
        heading = next(one.heading for one in found if question["prompt"].startswith(one.heading))
        assert any(question["answer"] in text for text in texts if text.startswith(heading))
        assert not any(text.startswith(question["prompt"] + " ") for text in texts)


def test_pages_that_cannot_be_written_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert pages(["-o", str(tmp_path / "file/pages")]) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert line == f"{tmp_path / 'file/pages'}: Not a directory: name another folder with -o"
