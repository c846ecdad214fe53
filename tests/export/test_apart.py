"""Programs that are written by processes of their own."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from edge_export import programs
from edge_export.apart import write_apart
from edge_export.inputs import load_inputs
from edge_export.source import ExportConfig, Source
from edge_runtime.errors import BadFormatError, EdgeRuntimeError, StorageError

NATIVE, ONNX = ("native", "paged"), ("onnx", "portable")
CONFIG = ExportConfig("x", "f16", 16, None, ("static",), None, (NATIVE, ONNX))


def test_the_same_programs_as_in_one_process(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, said, written = Source.open(tiny_checkpoint), [], []
    inputs = load_inputs(source)
    for large in (programs.LARGE, 0):
        monkeypatch.setattr(programs, "LARGE", large)
        root = tmp_path / str(large)
        root.mkdir()
        lines: list[str] = []
        entries = programs.write_programs(root, source, inputs, CONFIG, lines.append)
        written.append((entries, {path.name: path.read_bytes() for path in root.iterdir()}))
        said.append([line.split(": ")[0] for line in lines])
    assert written[0] == written[1]
    assert said[0] == said[1] != []


def test_what_the_process_refuses_is_raised_here(tiny_checkpoint: Path, tmp_path: Path) -> None:
    source = Source.open(tiny_checkpoint)
    alone = replace(CONFIG, programs=(NATIVE,))
    with pytest.raises(StorageError, match="nowhere"):
        write_apart(tmp_path / "nowhere", source, alone, print)
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    for file in tiny_checkpoint.iterdir():
        if file.is_file():
            (damaged / file.name).write_bytes(file.read_bytes()[:200])
    with pytest.raises(BadFormatError, match="damaged"):
        write_apart(tmp_path, replace(source, directory=damaged), alone, print)


def test_a_process_that_is_killed_is_one_line(tiny_checkpoint: Path, tmp_path: Path) -> None:
    def kill(line: str) -> None:
        for child in Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split():
            if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes():
                os.kill(int(child), signal.SIGKILL)

    alone = replace(CONFIG, programs=(ONNX,))
    with pytest.raises(EdgeRuntimeError, match="onnx/portable ended with -9 before it was done"):
        write_apart(tmp_path, Source.open(tiny_checkpoint), alone, kill)
