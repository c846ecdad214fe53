"""The C++ and the Python readers give one verdict on damaged files: both accept, or both raise the same error.

A file that only one of them takes would be verified by one tool and refused by the next.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bank_reference import DTYPES, PAGE, LevelFile
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_runtime import _core
from edge_runtime.bank import LevelReader
from edge_runtime.bundle import parse_manifest
from edge_runtime.errors import EdgeRuntimeError
from edge_runtime.pager import Pager

GOLDEN = Path(__file__).parent / "golden"
# The same examples every time: a run that fails must fail again.
SETTINGS = settings(max_examples=300, derandomize=True, deadline=None)

LIMITS = [0, 1, 2, 31, 32, 255, 256, 257, 4096, 2**20, 2**20 + 1, 2**31, 2**32, 2**40, 2**62, 2**63, 2**64]
VALUES = st.one_of(
    st.sampled_from([*LIMITS, -1, 0.0, 1.0, True, False, None, [], {}, "", [[]], {"a": {}}]),
    st.sampled_from(LIMITS).map(str),
    st.sampled_from(["i8", "i4", "f32", "i7", "ffn", "kv", "lora_qk", "U8", "I32", "U64", "F4", "F8_E4M3"]),
    st.sampled_from(
        ["[0]", "[-0]", "[1.0]", "[true]", "[0,1]", "[1,0]", "[[]]", '[["w1",[true,32]]]', "01", "1 "]
    ),
    st.text(max_size=4),
)
# What parsers of JSON differ in.
TOKENS = st.one_of(
    st.sampled_from(["-0", "1E2", "1.0", "01", "NaN", "Infinity", "1e999", "18446744073709551616"]),
    st.sampled_from(['"\\u0000"', '"\\ud800"', '"kind":"kv",', '"dtype":"U8",', "/**/", "é", "{}", "null"]),
    st.sampled_from([" ", "\n", "\t", ",", "[" * 20, "]" * 20]),
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Of every value within, the keys that lead to it."""
    keys = value.keys() if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    return [path, *(place for key in keys for place in places(value[key], (*path, key)))]


@st.composite
def changed(draw: st.DrawFn, document: dict[str, Any]) -> Any:
    """The document with one to three values replaced, removed or added."""
    copy: Any = json.loads(json.dumps(document))
    for _ in range(draw(st.integers(1, 3))):
        *above, last = draw(st.sampled_from(places(copy)[1:] or [("x",)]))
        parent = copy
        for key in above:
            parent = parent[key]
        match draw(st.integers(0, 5)):
            case 0:
                del parent[last]
            case 1 if isinstance(parent, dict):
                parent[draw(st.sampled_from(["x", "__metadata__", "dtype", "extra"]))] = draw(VALUES)
            case _:
                parent[last] = draw(VALUES)
        if not places(copy)[1:]:
            break
    return copy


@st.composite
def spoiled(draw: st.DrawFn, text: str) -> str:
    """The text with a token put over a piece of it."""
    at = draw(st.integers(0, len(text)))
    end = min(len(text), at + draw(st.integers(0, 3)))
    return text[:at] + draw(TOKENS) + text[end:]


def level_file(dtype: str) -> tuple[dict[str, Any], bytes]:
    """A small level file's header and data."""
    random = np.random.default_rng(0)
    blocks = {node: random.standard_normal((2, 3, 2, 32)).astype(np.float32) for node in (1, 0)}
    data = LevelFile(1, 3, dtype, (0, 2), blocks).to_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    return json.loads(data[8:start]), data[start:]


LEVELS = {dtype: level_file(dtype) for dtype in DTYPES}


def framed(text: str, data: bytes) -> bytes:
    header = text.encode("utf-8", "surrogatepass")
    header += b" " * (-(8 + len(header)) % PAGE)
    return len(header).to_bytes(8, "little") + header + data


@st.composite
def damaged_levels(draw: st.DrawFn) -> bytes:
    header, data = LEVELS[draw(st.sampled_from(DTYPES))]
    text = json.dumps(header, separators=(",", ":"))
    kind = draw(st.sampled_from(["value", "text", "table", "bytes", "size", "length"]))
    if kind == "value":
        text = json.dumps(draw(changed(header)))
    elif kind == "text":
        text = draw(spoiled(text))
    elif kind == "table":
        rows = draw(
            st.lists(st.integers(-2, 3) | st.sampled_from([2**31 - 1, -(2**31)]), min_size=3, max_size=3)
        )
        data = data[:-12] + np.array(rows, "<i4").tobytes()
    whole = bytearray(framed(text, data))
    if kind == "bytes":
        for _ in range(draw(st.integers(1, 3))):
            whole[draw(st.integers(0, 8 + len(text)))] = draw(st.integers(0, 255))
    elif kind == "size":
        size = draw(
            st.integers(0, 40) | st.integers(PAGE - 2, PAGE + 2) | st.integers(len(whole) - 9, len(whole) + 9)
        )
        whole = whole[:size] + bytes(max(0, size - len(whole)))
    elif kind == "length":
        lengths = [
            0,
            1,
            PAGE - 9,
            PAGE - 7,
            len(whole) - 8,
            len(whole) - 7,
            2**24,
            2**24 + 1,
            10**8,
            2**63,
            2**64 - 1,
        ]
        whole[:8] = draw(st.sampled_from(lengths)).to_bytes(8, "little")
    return bytes(whole)


def verdict(read: Any, *arguments: Any) -> str:
    """The error's class, or 'accepted'. Anything but an EdgeRuntimeError fails the test."""
    try:
        read(*arguments)
    except EdgeRuntimeError as error:
        return f"{type(error).__name__}{' of several lines' if chr(10) in str(error) else ''}"
    return "accepted"


def with_metadata(dtype: str, **metadata: str) -> bytes:
    header, data = LEVELS[dtype]
    return framed(json.dumps({**header, "__metadata__": {**header["__metadata__"], **metadata}}), data)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("levels")


@SETTINGS
@given(damaged_levels())
def test_level_files(folder: Path, data: bytes) -> None:
    path = folder / "level.safetensors"
    path.write_bytes(data)
    by_core = verdict(lambda: Pager([[path]], budget=1 << 20, storage="direct"))
    assert verdict(LevelReader, path) == by_core


@SETTINGS
@given(changed(json.loads((GOLDEN / "manifest.json").read_text())).map(json.dumps))
def test_manifests(text: str) -> None:
    assert verdict(parse_manifest, text) == verdict(_core.validate_manifest, text)


@SETTINGS
@given(spoiled((GOLDEN / "manifest.json").read_text()))
def test_manifests_whose_text_is_damaged(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        return
    assert verdict(parse_manifest, text) == verdict(_core.validate_manifest, text)
