"""`python -m edge_bench.peers` on tiny models: a row a peer with every figure, and what it refuses."""

from __future__ import annotations

import importlib.util
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from peers_toy import ANCHOR, BANK, needs_llama_cpp, run

from edge_bench import banks, machine, records
from edge_bench.peers import contenders, inputs
from edge_bench.peers.__main__ import main
from edge_bench.peers.ranks import lora_rank
from edge_bench.peers.ratios import ratios
from edge_bench.peers.swapping import STATES, TOKENS, timed_swap
from edge_runtime.cli.main import FAILURE


def check_rows(record: dict[str, Any]) -> None:
    for row in record["rows"]:
        assert row["version"]
        assert row["command"].startswith("python -m edge_bench.peers --model toy --only ")
        assert min(row["decode"], row["prefill128"], row["resident"], row["program_bytes"]) > 0
        assert row["prefill512"] is None or row["prefill512"] > 0
        swapped = [row[key] for key in ("swap_ms", "swap_cold_ms", "swap_resident_ms", "swap_bytes")]
        assert all(value is None for value in swapped) or all(
            isinstance(value, int | float) for value in swapped
        )
    text = records.markdown(record)
    assert all(f"| {row['name']} |" in text for row in record["rows"])
    assert record["command"] in text


def test_our_engine_has_both_dtypes_and_memory(
    toy: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = run(capsys, tmp_path, "--only", "native", "--quick")
    check_rows(record)
    assert [(row["name"], row["prefill512"]) for row in record["rows"]] == [
        ("native i4", None),
        ("native i8", None),
    ]
    assert all(
        row["decode_memory"] > 0 and row["resident_memory"] >= row["resident"] for row in record["rows"]
    )
    assert record["rows"][0]["swap_bytes"] <= record["rows"][1]["swap_bytes"]
    assert record["ratios"] == []


@needs_llama_cpp
def test_llama_cpp_beside_our_engine(toy: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = set()
    for quick in (("--quick",), ()):
        record = run(capsys, tmp_path, "--only", "llama.cpp,native", *quick)
        check_rows(record)
        names = [row["name"] for row in record["rows"]]
        assert names == ["llama.cpp Q4_0", "llama.cpp Q8_0", "native i4", "native i8"]
        assert [row["decode_memory"] is None for row in record["rows"]] == [True, True, False, False]
        whats = {one["what"] for one in record["ratios"]}
        assert {"decode", "decode, ours with memory", "swap, cold", "swap, preloaded"} < whats
        files = {(path, path.stat().st_mtime_ns) for path in tmp_path.iterdir()}
        assert not made or files == made  # kept, not made again
        made = files


def test_onnx_runtime_swaps_its_own_adapters(
    toy: None, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    record = run(capsys, tmp_path / "made", "--only", "onnxruntime", "--quick")
    check_rows(record)
    four, eight = record["rows"]
    assert (four["quantisation"], eight["quantisation"]) == ("8da4w", "int8")
    assert four["swap_bytes"] > 0
    assert eight["swapped"] is None


def test_an_adapter_changes_what_onnx_runtime_answers(
    toy: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnxruntime

    from edge_bench.peers.onnx_lora import ffn_products, write_adapter, write_program
    from edge_bench.peers.onnxruntime_worker import OnnxRuntimeWorker, _zeros
    from edge_bench.programs import cached_onnx

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    program = cached_onnx(ANCHOR, BANK, "8da4w", 16, 0, lambda _: None) / "anchor.portable.onnx"
    write_program(tmp_path / "lora.onnx", program, ANCHOR)
    for seed in (1, 2):
        write_adapter(tmp_path / str(seed), ffn_products(program, ANCHOR), 32, seed)
    session = onnxruntime.InferenceSession(str(tmp_path / "lora.onnx"), providers=["CPUExecutionProvider"])
    feeds = {one.name: _zeros(one) for one in session.get_inputs()}
    worker = OnnxRuntimeWorker()
    first, again, other = (
        session.run(["logits"], feeds, worker._using(str(tmp_path / name)))[0] for name in ("1", "1", "2")
    )
    assert np.array_equal(first, again)
    assert not np.allclose(first, other)


def test_a_peer_that_is_not_installed_is_one_line_where_it_is_named_and_else_left_out(
    toy: None, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "llama_cpp" else find(name))
    assert main(["--only", "llama.cpp", "--model", "toy", "--directory", str(tmp_path)]) == FAILURE
    [line] = capsys.readouterr().err.strip().splitlines()
    assert "no module llama_cpp: pip install 'edge-runtime[peers]'" in line
    monkeypatch.setattr(
        contenders, "PEERS", {name: contenders.PEERS[name] for name in ("llama.cpp", "native")}
    )
    record = run(capsys, tmp_path, "--quick")
    assert {row["peer"] for row in record["rows"]} == {"native"}
    assert [one["what"] for one in record["skipped"]] == ["llama.cpp"]
    assert "edge-runtime[peers]" in records.markdown(record)


def test_an_unknown_peer_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--only", "mlx", "--directory", str(tmp_path)]) == FAILURE
    [line] = capsys.readouterr().err.strip().splitlines()
    assert "mlx" in line
    assert "llama.cpp, executorch, onnxruntime, onnxruntime-genai, native" in line


@needs_llama_cpp
def test_a_gguf_model_has_the_anchors_parameters_without_what_llama_lacks(tmp_path: Path) -> None:
    from edge_bench.peers.gguf_files import random_weights, write_model
    from edge_bench.peers.llama_cpp_worker import LlamaCpp

    write_model(tmp_path / "toy.gguf", ANCHOR, "Q4_0", random_weights(0))
    worker = LlamaCpp()
    qk_norms = 2 * ANCHOR.layers * ANCHOR.heads * ANCHOR.head_dim
    assert worker.open(str(tmp_path / "toy.gguf"), 2, 96) == ANCHOR.parameters - qk_norms
    assert worker.speed(16, False, "none") > 0


@pytest.mark.parametrize("multiple", [1, 32])
def test_a_rank_brings_about_the_parameters_of_a_path(multiple: int) -> None:
    bank = banks.PAPER["160M"]
    products = [(512, 2048), (512, 2048), (2048, 512)] * bank.layers
    rank = lora_rank(products, bank, multiple)
    assert rank % multiple == 0
    path = 3 * bank.layers * bank.d_model * sum(bank.rows)
    assert rank * sum(map(sum, products)) == pytest.approx(path, rel=0.06)


def test_a_swap_is_charged_with_what_its_first_token_takes_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    calls: list[str] = []

    def spend(name: str, seconds: float) -> None:
        nonlocal now
        now += seconds
        calls.append(name)

    monkeypatch.setattr("edge_bench.peers.swapping.time.perf_counter", lambda: now)

    def token() -> None:
        spend("token", 0.012 if calls[-1:] == ["swap"] else 0.010)  # it loads lazily

    swap = timed_swap(lambda: spend("swap", 0.003), token)
    assert swap == {"call_ms": pytest.approx(3), "delay_ms": pytest.approx(5)}
    assert calls == ["token", "swap", "token", *["token"] * TOKENS]


def test_ratios_are_of_the_pairs_of_a_round() -> None:
    def one(peer: str, bits: int, **options: Any) -> contenders.Contender:
        return contenders.Contender(peer, f"q{bits}", bits, "toy", "1", Path("x"), "", **options)

    both = [one("native", 8, swap={}), one("llama.cpp", 8, swap={}), one("executorch", 4)]
    speeds = {
        ("native q8", "tg4", "none"): [1.0, 2.0, 3.0],
        ("native q8", "tg4", "fetched"): [2.0, 4.0, 6.0],
        ("llama.cpp q8", "tg4", "none"): [2.0, 8.0, 9.0],
    }
    swaps = {
        (name, state): [ms] * 3
        for name, ms in (("native q8", 2.0), ("llama.cpp q8", 30.0))
        for state in STATES
    }
    found = {row["what"]: row for row in ratios(both, speeds, "tg4", swaps)}
    assert all(row["other"] == "llama.cpp q8" for row in found.values())
    assert {what: row["median"] for what, row in found.items()} == {
        "decode": 3.0, "decode, ours with memory": 1.5, **{f"swap, {state}": 15.0 for state in ("preloaded", "cold")},
    }  # fmt: skip


def test_inputs_are_made_once_for_a_key_and_nothing_is_left_of_a_failure(tmp_path: Path) -> None:
    written: list[Path] = []

    def make(path: Path) -> None:
        written.append(path)
        path.write_text("made")

    key = {"anchor": asdict(ANCHOR)}
    assert inputs.cached(tmp_path, "a", key, make) == inputs.cached(tmp_path, "a", key, make)
    assert inputs.cached(tmp_path, "a", key | {"seed": 1}, make).read_text() == "made"
    assert len(written) == 2

    def fail(path: Path) -> None:
        path.mkdir()
        (path / "half").write_text("x")
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="full"):
        inputs.cached(tmp_path, "b", key, fail)
    assert len(list(tmp_path.iterdir())) == 2


def test_the_record_names_the_version_of_llama_cpp() -> None:
    assert "llama-cpp-python" in machine.versions()
