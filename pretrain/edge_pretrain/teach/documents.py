"""A folder of documents, split into sections and these into pieces that a tree can route.

A memory helps only where document and prompt are routed alike (docs/experiments.md), so every piece carries its
section's heading: the title and the first sentence, which is what a question about it begins with.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from edge_runtime.errors import BadFormatError, InvalidArgumentError, NotFoundError, UnsupportedError
from edge_runtime.text import readable

SUFFIXES = (".txt", ".md", ".jsonl", ".pdf")
TITLE_WORDS = 12  # a longer first line is text
NAME_WORDS = 4  # a first sentence of fewer is a name
_SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[\"'(\[]?[A-Z0-9])")


@dataclass(frozen=True)
class Document:
    """One file. `name` is relative to the folder, `sha256` of its bytes."""

    name: str
    sha256: str
    text: str


@dataclass(frozen=True)
class Section:
    """A heading and what follows it. `document` is the name of its document."""

    document: str
    heading: str
    pieces: tuple[str, ...]

    @property
    def texts(self) -> list[str]:
        """What is trained on: each piece behind the heading; the heading alone where nothing follows it."""
        return [f"{self.heading} {piece}" for piece in self.pieces] or [self.heading]


def read_folder(folder: Path) -> list[Document]:
    """The documents of a folder and its subfolders, or one file, by name.

    Raises NotFoundError, BadFormatError, UnsupportedError or InvalidArgumentError, one line that names the file.
    """
    if not folder.exists():
        raise NotFoundError(f"{folder}: no such folder or file")
    root = folder if folder.is_dir() else folder.parent
    paths = sorted(p for p in folder.rglob("*") if p.is_file()) if folder.is_dir() else [folder]
    chosen = [path for path in paths if path.suffix.lower() in SUFFIXES]
    if not chosen:
        raise InvalidArgumentError(f"{folder}: it has no documents; {', '.join(SUFFIXES)} are read")
    documents = []
    for path in chosen:
        data = path.read_bytes()
        text = _text(path, data)
        if text.strip():
            name = path.relative_to(root).as_posix()
            documents.append(Document(name, hashlib.sha256(data).hexdigest(), text))
    if not documents:
        raise InvalidArgumentError(f"{folder}: its documents have no text")
    return documents


def _text(path: Path, data: bytes) -> str:
    suffix = path.suffix.lower()
    if suffix == ".pdf":
        return _pdf_text(path)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise BadFormatError(f"{path}: not UTF-8 text") from None
    if suffix != ".jsonl":
        return text
    records = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
            records.append(readable(record if isinstance(record, str) else str(record["text"])))
        except (ValueError, KeyError, TypeError):
            raise BadFormatError(
                f'{path}: line {number} is neither a string nor an object with "text"'
            ) from None
    return "\n\n".join(records)


def _pdf_text(path: Path) -> str:
    try:
        from pypdf import PdfReader
        from pypdf.errors import PyPdfError
    except ImportError:
        raise UnsupportedError(
            f"{path}: reading PDF needs pypdf: pip install 'edge-runtime[teach]'"
        ) from None
    # It logs what it then raises, and what it could repair.
    logging.getLogger("pypdf").setLevel(logging.CRITICAL)
    try:
        return "\n\n".join(page.extract_text() for page in PdfReader(path).pages)
    except (PyPdfError, ValueError, KeyError) as error:
        raise BadFormatError(f"{path}: not a readable PDF ({type(error).__name__})") from None


def sentences(text: str) -> list[str]:
    """The sentences of running text, white space folded."""
    return [part for part in _SENTENCE.split(" ".join(text.split())) if part]


def sections(document: Document) -> list[Section]:
    """The sections of a document, each a title, its first sentence, and the sentences after it.

    A title is a Markdown heading, or a short line without a full stop that stands alone or opens a paragraph. Where a
    text has none, each paragraph's first sentence is its heading, with the second where the first is but a name.
    """
    found: list[Section] = []
    title: str | None = None
    body: list[str] = []

    def close() -> None:
        parts = [part for paragraph in body for part in sentences(paragraph)]
        if title is not None:
            heading = [f"{title}.", *parts[:1]]
            found.append(Section(document.name, " ".join(heading), tuple(parts[1:])))
        else:
            for paragraph in body:
                parts = sentences(paragraph)
                # "Radium. Radium is a metal. ...": a name alone is a title within the line.
                head = 2 if len(parts[0].split()) < NAME_WORDS and len(parts) > 2 else 1
                found.append(Section(document.name, " ".join(parts[:head]), tuple(parts[head:])))

    for paragraph in _paragraphs(document.text):
        first, *rest = paragraph
        if (named := _title(first)) is not None:
            close()
            title, body = named, [" ".join(rest)] if rest else []
        else:
            body.append(" ".join(paragraph))
    close()
    return found


def _paragraphs(text: str) -> Iterable[list[str]]:
    """Runs of lines that are not empty; a Markdown heading begins one."""
    lines: list[str] = []
    for line in [*text.splitlines(), ""]:
        line = line.strip()
        if lines and (not line or line.startswith("#")):
            yield lines
            lines = []
        if line:
            lines.append(line)


def _title(line: str) -> str | None:
    if line.startswith("#"):
        return line.lstrip("#").strip().rstrip(".") or None
    short = len(line.split()) <= TITLE_WORDS
    return line if short and line[-1] not in ".!?:;," and line[0].isupper() else None


def split(documents: Sequence[Document]) -> list[Section]:
    """The sections of all documents. InvalidArgumentError where there is none."""
    found = [section for document in documents for section in sections(document)]
    if not found:
        raise InvalidArgumentError("the documents have no sentences")
    return found
