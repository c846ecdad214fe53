"""Files of lines that people write: prompts, questions, records."""

from __future__ import annotations

from pathlib import Path

from edge_runtime.errors import BadFormatError, NotFoundError


def text_lines(path: Path, wanted: str) -> list[tuple[int, str]]:
    """The lines that are not blank, with their numbers from 1. wanted: what the file should be, for the message.

    Only a line feed ends a line: JSON allows U+2028 and its like within a string. Raises NotFoundError, or
    BadFormatError where the file is not UTF-8.
    """
    if not path.is_file():
        raise NotFoundError(f"{path}: no such file: name {wanted}")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise BadFormatError(f"{path}: not UTF-8 text: name {wanted}") from None
    return [(number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]
