"""The error report: banks stored anew, what counts as right, and the tables."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from edge_bench import quantisation
from edge_bench.quantisation import banks, markdown
from edge_bench.quantised import answers, asked, decode_speed, with_bank
from edge_export.bundle import export_bundle
from edge_export.source import ExportConfig, Source, bank_dtypes
from edge_runtime.bank import LevelReader
from edge_runtime.bundle import Bundle
from edge_runtime.cli.evaluate import read_questions
from edge_runtime.errors import InvalidArgumentError
from edge_runtime.runtime import Runtime


@pytest.fixture(scope="module")
def bundle(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    out = tmp_path_factory.mktemp("quantisation") / "tiny.bundle"
    config = ExportConfig("tiny", "f32", 16, None, ("static",), "f32", (("native", "paged"),))
    export_bundle(Source.open(tiny_checkpoint), out, config, lambda step: None)
    return Bundle.open(out)


def test_a_bank_is_stored_anew_level_by_level(bundle: Bundle, tmp_path: Path) -> None:
    stored = with_bank(bundle, tmp_path / "out", {0: "f16", 1: "i8", 2: "i4"})
    assert [finding for _, _, finding in stored.verify() if finding] == []
    assert stored.manifest.memory is not None
    assert [level.dtype for level in stored.manifest.memory.levels] == ["f16", "i8", "i4"]
    for level, tolerance in ((0, 1e-3), (1, 0.01), (2, 0.2)):
        old, new = (LevelReader(one.path_of(f"memory/level{level}.safetensors")) for one in (bundle, stored))
        assert old.nodes().tolist() == new.nodes().tolist()
        wanted = old.read(0)
        error = np.abs(new.read(0) - wanted).max()
        assert 0 < error < tolerance * np.abs(wanted).max()


def test_answers_are_those_of_the_session(bundle: Bundle, tiny_checkpoint: Path) -> None:
    """Random weights answer nothing right: so what they do say becomes the answer that is asked for."""
    runtime = Runtime.open(bundle.directory)
    questions = read_questions(tiny_checkpoint / "questions.jsonl", None)
    found = asked(runtime, questions)
    wrong = answers(runtime, found, texts=2)
    assert wrong["accuracy"] == 0
    # No better than a guess among the vocabulary, and no worse than random logits are.
    assert 10 < wrong["perplexity"] < 10 * bundle.manifest.anchor.vocab_size
    assert runtime.pager is not None
    said = []
    for question in found:
        with runtime.pager.fetch(question.nodes) as lease:
            context, tokens = runtime.engine.new_context(), list(question.prompt)
            logits = context.forward(np.array(tokens), lease.handle)
            tokens.append(int(logits.argmax()))
            tokens.append(int(context.forward(np.array(tokens[-1:]), lease.handle).argmax()))
        said.append(type(question)(question.prompt, tuple(tokens[-2:]), question.nodes, question.rare))
    right = answers(runtime, said, texts=2)
    assert (right["accuracy"], right["accuracy_rare"]) == (1, 1)
    assert right["perplexity"] < wrong["perplexity"]
    assert decode_speed(runtime, found[0])["decode_tokens_per_s"] > 0


def test_a_banks_dtypes_are_read_level_by_level() -> None:
    assert bank_dtypes("i8") == ("i8", {})
    assert bank_dtypes("i8,0=f16,2=i4") == ("i8", {0: "f16", 2: "i4"})
    for text in ("i9", "i8,i4", "i8,2=i9", "i8,-1=i4", "2=i4", "", "i8,2=i4,2=i8"):
        with pytest.raises(InvalidArgumentError, match="--memory-dtype"):
            bank_dtypes(text)


def test_the_export_has_a_dtype_a_level(tiny_checkpoint: Path, tmp_path: Path) -> None:
    config = ExportConfig("tiny", "f16,2=i4", 16, None, ("static",), "i8", (("native", "paged"),))
    export_bundle(Source.open(tiny_checkpoint), tmp_path / "out", config, lambda step: None)
    memory = Bundle.open(tmp_path / "out").manifest.memory
    assert memory is not None
    assert [level.dtype for level in memory.levels] == ["f16", "f16", "i4"]


def test_the_command_writes_a_record(
    tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "record.json"
    arguments = [str(tiny_checkpoint), "--engines", "native", "--questions", "3", "--texts", "1"]
    assert quantisation.main([*arguments, "--out", str(out)]) == 0
    record = json.loads(out.read_text())
    # Every anchor dtype of the engine with every choice of a bank, f32 first.
    assert len(record["rows"]) == 4 * len(banks([0, 1, 2]))
    assert (record["rows"][0]["anchor"], record["rows"][0]["bank"]) == ("f32", "f32")
    assert "+0.00%" in markdown(record)
    sizes = {
        (row["anchor"], row["bank"]): (row["program_bytes"], row["bank_bytes"]) for row in record["rows"]
    }
    assert sizes["i4", "f32"][0] < sizes["i8", "f32"][0] < sizes["f16", "f32"][0] < sizes["f32", "f32"][0]
    assert quantisation.main([str(tiny_checkpoint), "--engines", "steam"]) == 1
    assert "'steam'" in capsys.readouterr().err
