"""Writes the measured sections of docs/benchmarks.md and docs/quantisation.md out of the records in docs/records.

    python -m edge_bench.document            after a record was measured and copied there
    python -m edge_bench.document --check    fails where the document differs from its records

A section stands between two markers, `<!-- record: NAME -->` and `<!-- end -->`, and holds what docs/records/NAME.json
tells; all else is prose, and stays as it is.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from edge_bench.command import guarded
from edge_bench.records import markdown, origin, read_record
from edge_runtime.cli.main import FAILURE, Parser
from edge_runtime.errors import BadFormatError, NotFoundError

PROGRAM = "edge_bench.document"
DOCUMENTS = (Path("docs/benchmarks.md"), Path("docs/quantisation.md"))
SECTION = re.compile(
    r"(^<!-- record: ([\w.-]+) -->\n)(?:(?!^<!-- record: ).)*?(^<!-- end -->$)", re.DOTALL | re.MULTILINE
)
MARKER = re.compile(r"^<!-- record: ", re.MULTILINE)  # in a line of prose it is a mention


def documented(text: str, records: Path) -> str:
    """The document with its sections written anew.

    Raises:
        NotFoundError: a marker names no record of the folder.
        BadFormatError: a section has no end, or a record is damaged.
    """

    def section(match: re.Match[str]) -> str:
        path = records / f"{match[2]}.json"
        if not path.is_file():
            raise NotFoundError(
                f"{path}: the document has a section for it: measure it, or remove the section"
            )
        record = read_record(path)
        # Below the document's own headings.
        body = re.sub(r"^#", "###", markdown(record), flags=re.MULTILINE)
        if (found := origin(record)) not in body:
            body = f"{body}\n\n{found}"
        return f"{match[1]}\n{body}\n\n{match[3]}"

    if len(SECTION.findall(text)) != len(MARKER.findall(text)):
        raise BadFormatError("a section of the document has no '<!-- end -->' before the next one begins")
    return SECTION.sub(section, text)


def run(arguments: argparse.Namespace) -> int:
    differ = False
    for document in arguments.documents or DOCUMENTS:
        old = document.read_text(encoding="utf-8")
        new = documented(old, document.parent / "records")
        if not arguments.check:
            document.write_text(new, encoding="utf-8")
        elif old != new:
            print(f"{document}: differs from its records: python -m {PROGRAM}", file=sys.stderr)
            differ = True
    return FAILURE if differ else 0


def main(arguments: Sequence[str] | None = None) -> int:
    parser = Parser(prog=PROGRAM, description="Writes the measured sections of a document.")
    parser.add_argument(
        "documents", type=Path, nargs="*", help=f"(default: {', '.join(map(str, DOCUMENTS))})"
    )
    parser.add_argument(
        "--check", action="store_true", help="write nothing; fail where something would change"
    )
    return guarded(parser, run, arguments)


if __name__ == "__main__":
    sys.exit(main())
