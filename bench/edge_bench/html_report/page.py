"""Records as one HTML file that needs no other: tables that become cards on a phone, pictures inside."""

from __future__ import annotations

import base64
import tempfile
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import matplotlib as mpl
from markdown_it import MarkdownIt
from markdown_it.token import Token

from edge_bench import records

STYLE = Path(__file__).with_name("style.css")


def page(found: Sequence[tuple[str, dict[str, Any]]], title: str) -> str:
    """Of (name, record) pairs, in this order."""
    parts = [section(number, name, record) for number, (name, record) in enumerate(found)]
    links = "".join(
        f'<li><a href="#r{number}">{escape(records.title(record))}</a> <small>{escape(name)}</small></li>'
        for number, (name, record) in enumerate(found)
    )
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>\n{STYLE.read_text(encoding='utf-8')}</style>\n</head>\n<body>\n"
        f"<h1>{escape(title)}</h1>\n<nav><ul>{links}</ul></nav>\n" + "\n".join(parts) + "\n</body>\n</html>\n"
    )


def section(number: int, name: str, record: dict[str, Any]) -> str:
    body = to_html(records.markdown(record))
    return (
        f'<section id="r{number}">\n<h2>{escape(records.title(record))}</h2>\n'
        f"{picture(record, name)}{body}{circumstances(record)}</section>"
    )


def to_html(markdown: str) -> str:
    """Each cell of a table carries its column's name, which stands beside it where the screen is narrow."""
    renderer = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = renderer.parse(markdown)
    head: list[str] = []
    column, in_head = 0, False
    for at, token in enumerate(tokens):
        if token.type in ("thead_open", "thead_close"):
            in_head = token.type == "thead_open"
            head = [] if in_head else head
        elif token.type == "tr_open":
            column = 0
        elif token.type in ("th_open", "td_open"):
            token.attrs.pop("style", None)
            text = plain_text(tokens[at + 1])
            if in_head:
                head.append(text)
            else:
                token.attrSet("data-label", head[column] if column < len(head) else "")
                column += 1
    return str(renderer.renderer.render(tokens, renderer.options, {}))


def plain_text(inline: Token) -> str:
    return "".join(child.content for child in inline.children or ())


def picture(record: dict[str, Any], name: str) -> str:
    """Inline, as an image of its own: identifiers within one SVG do not meet those of another."""
    with tempfile.TemporaryDirectory() as folder, mpl.rc_context({"svg.hashsalt": "edge-runtime"}):
        path = Path(folder) / "picture.svg"
        if not records.draw(record, path):
            return ""
        data = base64.b64encode(path.read_bytes()).decode("ascii")
    return f'<img alt="{escape(name)}" src="data:image/svg+xml;base64,{data}">\n'


def circumstances(record: dict[str, Any]) -> str:
    """The machine, the versions, the command: what the figures depend on."""
    rows: list[tuple[str, str]] = []
    machine, load = record.get("machine", {}), record.get("load_average", {})
    if isinstance(machine, dict):
        rows += [(key.replace("_", " "), _text(value)) for key, value in machine.items()]
    if isinstance(load, dict):
        rows += [(f"load {key}", _text(value)) for key, value in load.items()]
    versions = record.get("versions", {})
    if isinstance(versions, dict):
        rows.append(("versions", ", ".join(f"{key} {value}" for key, value in versions.items() if value)))
    rows += [(key, _text(record[key])) for key in ("revision", "seconds") if key in record]
    body = "".join(f"<dt>{escape(key)}</dt><dd>{escape(value)}</dd>" for key, value in rows)
    command = escape(str(record.get("command", "not recorded")))
    return (
        f"\n<pre><code>{command}</code></pre>\n<details><summary>machine and versions</summary>"
        f"<dl>{body}</dl></details>\n"
    )


def _text(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {inner}" for key, inner in value.items() if inner is not None)
    if isinstance(value, list):
        return " ".join(map(str, value))
    return f"{value:,}" if isinstance(value, int) else str(value)
