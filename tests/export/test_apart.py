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


def test_the_same_program_as_in_one_process(tiny_checkpoint: Path, tmp_path: Path) -> None:
    source, alone = Source.open(tiny_checkpoint), replace(CONFIG, programs=(NATIVE,))
    written, said = [], []
    for name in ("here", "apart"):
        root = tmp_path / name
        root.mkdir()
        lines: list[str] = []
        if name == "here":
            entry = programs.write_program(root, load_inputs(source), alone, lines.append)
        else:
            entry = write_apart(root, source, alone, lines.append)
        written.append((entry, {path.name: path.read_bytes() for path in root.iterdir()}))
        said.append([line.split(": ")[0] for line in lines])
    assert written[0] == written[1]
    assert said[0] == said[1] != []


def test_several_programs_of_a_large_anchor_are_written_apart(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Source.open(tiny_checkpoint)
    inputs, apart, here = load_inputs(source), [], []
    monkeypatch.setattr(programs, "write_apart", lambda *given: apart.append(given[2].programs))
    monkeypatch.setattr(programs, "write_program", lambda *given: here.append(given[2].programs))
    programs.write_programs(tmp_path, source, inputs, CONFIG, print)
    assert (apart, here) == ([], [(NATIVE,), (ONNX,)])
    monkeypatch.setattr(programs, "LARGE", inputs.decoder.config.parameters)
    programs.write_programs(tmp_path, source, inputs, replace(CONFIG, programs=(NATIVE,)), print)
    assert (apart, here[2:]) == ([], [(NATIVE,)])
    programs.write_programs(tmp_path, source, inputs, CONFIG, print)
    assert (apart, here[3:]) == ([(NATIVE,), (ONNX,)], [])


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
