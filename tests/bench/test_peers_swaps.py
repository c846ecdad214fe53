"""Peers that only swap: what they read is what was swapped in. And the least memory that each decodes in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from peers_toy import run

from edge_bench import records, synthetic
from edge_bench.footprint.search import MIB
from edge_bench.limited import Trial
from edge_bench.peers import limits
from edge_bench.peers.contenders import Contender


def check_swaps(row: dict[str, Any], record: dict[str, Any]) -> None:
    assert row["decode"] is None
    assert min(row[key] for key in ("swap_ms", "swap_cold_ms", "swap_resident_ms")) >= 0
    assert row["swap_bytes"] > 0
    text = records.markdown(record)
    assert text.count(f"| {row['name']} |") == 1  # among the swaps, not the speeds


@pytest.mark.slow
def test_executorch_loads_its_program_anew_and_an_adapter_from_a_file(
    toy: None,
    tiny_bundle: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("edge_runtime._executorch", reason="built without ExecuTorch")
    from edge_bench.peers.executorch_data_worker import DataWorker, token_at

    router = (tiny_bundle / "router/minilm.pte", tiny_bundle / "router/minilm.tokenizer.json")
    monkeypatch.setattr(synthetic, "cached_program", lambda *_: tiny_bundle / "anchor.paged.pte")
    monkeypatch.setattr(synthetic, "cached_embedder", lambda _: router)
    record = run(capsys, tmp_path, "--only", "executorch", "--quick")
    anew, data = record["rows"]
    assert anew["swapped"] == "the program, loaded anew"
    assert anew["swap_bytes"] == anew["program_bytes"]
    check_swaps(data, record)

    [folder] = tmp_path.glob("*-adapted")
    adapter = folder / "1.ptd"
    changed = bytearray(adapter.read_bytes())
    at = max(range(0, len(changed) - 256, 256), key=lambda at: len(set(changed[at : at + 256])))
    changed[at : at + 256] = bytes(reversed(changed[at : at + 256]))  # where weights lie
    (tmp_path / "changed.ptd").write_bytes(changed)
    worker = DataWorker()
    worker.open(str(folder / "program.pte"), 1)
    answers = []
    for path in (adapter, folder / "2.ptd", tmp_path / "changed.ptd"):
        answers.append(np.array(token_at(worker._load(str(path)), 0)[0]))
    assert np.array_equal(answers[0], answers[1])
    assert not np.allclose(answers[0], answers[2])


def test_genai_answers_as_onnx_runtime_with_the_same_adapter(
    toy: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    genai = pytest.importorskip("onnxruntime_genai", reason="pip install onnxruntime-genai==0.18.0")
    import onnxruntime

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    record = run(capsys, tmp_path / "made", "--only", "onnxruntime-genai", "--quick")
    [row] = record["rows"]
    check_swaps(row, record)

    made = {path.name.partition("-")[2]: path for path in (tmp_path / "made").iterdir()}
    session = onnxruntime.InferenceSession(str(made["toy-lora.onnx"]), providers=["CPUExecutionProvider"])
    model = genai.Model(str(made["toy-genai"]))
    adapters = genai.Adapters(model)
    answers = []
    for name in ("toy-1.onnx_adapter", "toy-2.onnx_adapter"):
        adapter, options = onnxruntime.LoraAdapter(), onnxruntime.RunOptions()
        adapter.Load(str(made[name]))
        options.add_active_adapter(adapter)
        feeds = {one.name: zeros(one) for one in session.get_inputs()}
        [wanted] = session.run(["logits"], feeds, options)
        adapters.load(str(made[name]), name)
        generator = genai.Generator(model, genai.GeneratorParams(model))
        generator.set_active_adapter(adapters, name)
        generator.append_tokens(np.zeros(1, np.int32))
        answers.append(np.array(generator.get_logits()).ravel())
        assert answers[-1] == pytest.approx(wanted.ravel(), abs=1e-4)
    assert not np.allclose(*answers)


def zeros(given: Any) -> np.ndarray[Any, Any]:
    """One token, nothing before it, no memory."""
    shape = [dim if isinstance(dim, int) else int(given.name == "tokens") for dim in given.shape]
    kinds = {"tensor(int64)": np.int64, "tensor(float16)": np.float16, "tensor(float)": np.float32}
    return np.zeros(shape, kinds[given.type])


def test_the_least_memory_is_bisected_for_each(
    toy: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def attempt(one: Contender, memory: str, limit: int | None, least: float) -> Trial:
        needed = (100 if memory == "none" else 130) * MIB
        enough = limit is None or limit >= needed
        assert least == (0 if limit is None else limits.HOPELESS * 80)
        return Trial(limit, 80.0 if enough else 0.0, "ok" if enough else "slow", 200 * MIB, 0, 1)

    monkeypatch.setattr(limits, "_attempt", attempt)
    monkeypatch.setattr(limits.MemoryGroup, "below_own", lambda limit: memoryview(b""))
    arguments = ["--only", "native", "--model", "toy", "--directory", str(tmp_path), "--json"]
    assert limits.main(arguments) == 0
    record = json.loads(capsys.readouterr().out)
    found = {row["name"]: row["smallest"]["limit_bytes"] / MIB for row in record["rows"]}
    assert found == {
        "native i4": pytest.approx(100, rel=0.03),
        "native i4 with memory": pytest.approx(130, rel=0.03),
    }
    assert "| native i4 with memory |" in records.markdown(record)
