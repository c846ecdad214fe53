"""Synthetic bundles: whole, the same for one seed, small where asked, and refused in one line."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edge_bench import banks, kernels, synthetic
from edge_bench.banks import BankConfig
from edge_bench.kernel_report import draw, markdown
from edge_bench.synth import VERB
from edge_bench.synthetic import Synthetic
from edge_pretrain.model import PAPER_ANCHORS, AnchorConfig
from edge_runtime.bank import LevelReader
from edge_runtime.bundle import Bundle
from edge_runtime.cli.main import main
from edge_runtime.errors import InvalidArgumentError, StorageError
from edge_runtime.runtime import Runtime

# The dimensions of the tests' bundle, so that its program and embedder serve.
ANCHOR = AnchorConfig(4, 64, 2, 32, 128, 320, 96)
BANK = BankConfig("toy", 64, 2, (8, 4, 2), fanout=8)


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch, tiny_bundle: Path) -> None:
    monkeypatch.setitem(PAPER_ANCHORS, "toy", ANCHOR)
    monkeypatch.setitem(banks.PAPER, "toy", BANK)
    monkeypatch.setattr(synthetic, "CONTEXT_LENGTH", ANCHOR.context_length)
    monkeypatch.setattr(synthetic, "MAX_PREFILL", 16)
    monkeypatch.setattr(synthetic, "cached_program", lambda *_: tiny_bundle / "anchor.paged.pte")
    router = tiny_bundle / "router"
    monkeypatch.setattr(
        synthetic, "cached_embedder", lambda _: (router / "minilm.pte", router / "minilm.tokenizer.json")
    )


def write(plan: Synthetic, out: Path) -> Bundle:
    for _ in plan.write_bank(out):
        pass
    plan.write_rest(out, lambda step: None)
    return Bundle.open(out)


@pytest.mark.parametrize("dtype", ["f32", "i8", "i4"])
def test_a_native_bundle_verifies_and_answers(toy: None, tmp_path: Path, dtype: str) -> None:
    plan = Synthetic("toy", anchor_dtype=dtype, engine="native")
    bundle = write(plan, tmp_path / "toy.bundle")
    assert [finding for _, _, finding in bundle.verify() if finding] == []
    assert [(p.engine, p.dtype) for p in bundle.manifest.programs] == [("native", dtype)]
    with Runtime.open(bundle.directory).session() as session:
        assert "".join(session.generate("A prompt", max_tokens=6, memory="generic"))
        assert "".join(session.generate("A prompt", max_tokens=6))
        assert session.stats.bytes_read == 3 * 16384  # routed without another engine


@pytest.mark.parametrize("dtype", ["i8", "i4", "f16"])
def test_a_bank_of_holes_verifies_answers_and_takes_no_disk(toy: None, tmp_path: Path, dtype: str) -> None:
    plan = Synthetic("toy", memory_dtype=dtype, anchor_dtype="i8", engine="native", sparse=True)
    bundle = write(plan, tmp_path / "toy.bundle")
    assert [finding for _, _, finding in bundle.verify() if finding] == []
    level = (bundle.directory / "memory/level3.safetensors").stat()
    assert level.st_size > 8**3 * 16384 > 20 * 512 * level.st_blocks
    with Runtime.open(bundle.directory).session() as session:
        fetched = "".join(session.generate("A prompt", max_tokens=6))
        assert fetched == "".join(session.generate("A prompt", max_tokens=6, memory="none"))
    # A bank that is stored takes the place of one that is not.
    assert (
        sum(size for _, size in Synthetic("toy", memory_dtype=dtype).write_bank(bundle.directory))
        == plan.bank_bytes
    )


@pytest.mark.parametrize("dtype", ["i8", "i4", "f16"])
def test_a_bundle_verifies_and_answers(toy: None, tmp_path: Path, dtype: str) -> None:
    bundle = write(Synthetic("toy", memory_dtype=dtype), tmp_path / "toy.bundle")
    assert [finding for _, _, finding in bundle.verify() if finding] == []
    with Runtime.open(bundle.directory).session() as session:
        fetched = "".join(session.generate("A prompt", max_tokens=6))
        assert fetched
        assert len(session.stats.path) == 3
        assert session.stats.bytes_read == 3 * 16384
        assert "".join(session.generate("A prompt", max_tokens=6, memory="generic"))


def test_a_seed_gives_the_same_bank_and_another_does_not(toy: None, tmp_path: Path) -> None:
    digests = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        write(Synthetic("toy", seed=seed), tmp_path / name)
        digests.append((tmp_path / name / "memory/level2.safetensors").read_bytes())
    assert digests[0] == digests[1] != digests[2]


def test_levels_that_are_there_are_kept(toy: None, tmp_path: Path) -> None:
    plan = Synthetic("toy")
    write(plan, tmp_path / "toy")
    assert list(plan.write_bank(tmp_path / "toy")) == []
    assert sum(size for _, size in Synthetic("toy", seed=1).write_bank(tmp_path / "toy")) == plan.bank_bytes


def test_a_smaller_bank_is_a_part_of_the_tree_that_prompts_are_routed_to(toy: None, tmp_path: Path) -> None:
    # 32 kB of parameters: a whole tree has 456 kB.
    plan = Synthetic("toy", 32e3)
    bundle = write(plan, tmp_path / "toy")
    assert plan.bank_bytes < Synthetic("toy").bank_bytes / 8
    kept = LevelReader(bundle.directory / "memory/level3.safetensors").nodes().tolist()
    assert kept == plan.nodes[2]
    runtime = Runtime.open(bundle.directory)
    assert runtime.router is not None
    for prompt in ("one", "another thing", "The atomic number of hafnium"):
        assert runtime.router.route(prompt).path[2] in kept
    with pytest.raises(InvalidArgumentError, match="smallest part"):
        Synthetic("toy", 1e3).nodes  # noqa: B018
    with pytest.raises(InvalidArgumentError, match=r"whole tree has .* leave --bank out"):
        Synthetic("toy", 1e6).nodes  # noqa: B018


def test_the_paper_s_bank_has_the_paper_s_size() -> None:
    assert Synthetic("160M", 4.6e9).to_json()["bank_parameters"] == 4_624_220_160
    assert 200e6 < Synthetic("160M", 225e6).to_json()["bank_parameters"] <= 225e6


def test_a_full_disk_is_said_before_anything_is_written(
    toy: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=10**6)
    monkeypatch.setattr(banks.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(StorageError, match=r"0\.0 GB free"):
        list(Synthetic("toy").write_bank(tmp_path / "toy"))
    assert not list((tmp_path / "toy").rglob("level*"))


@pytest.mark.parametrize("arguments", [["3B"], ["160M", "--bank", "many"], ["160M", "--memory-dtype", "i2"]])
def test_bad_usage_is_one_line(
    tmp_path: Path, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as raised:
        main(["synth", *arguments, "-o", str(tmp_path / "out")])
    assert raised.value.code == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_another_directory_is_not_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "letter.txt").write_text("dear")
    assert main(["synth", "160M", "-o", str(tmp_path)]) == 1
    assert "not of synth" in capsys.readouterr().err
    assert VERB.name == "synth"


def test_kernels_gives_every_key(toy: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edge_bench import kernel_rounds

    plan = kernel_rounds.Plan(1, 1, 2, ("int8", "int4"), (0.6e9, 2e9))
    monkeypatch.setattr(kernel_rounds, "QUICK", plan)
    monkeypatch.setattr(kernel_rounds, "PREFILL_TOKENS", 32)
    monkeypatch.setattr(kernel_rounds, "STREAM_BYTES", 2**20)
    monkeypatch.setattr(kernels, "prepare", toy_banks)
    assert kernels.main(["--quick", "--json", "-o", str(tmp_path)]) == 0
    record: dict[str, Any] = json.loads((tmp_path / "kernels.json").read_text())
    assert {
        "decode_ratio_int8",
        "decode_ratio_int4",
        "prefill_ratio_int8",
        "added_ms_over_limit_int8",
        "added_ms_over_limit_int4",
        "kernel_share_of_bandwidth",
        "hidden_fetch_16_2gbs",
        "ttft_cold_over_warm_2gbs",
        "decode_tokens_per_s_off",
        "decode_tokens_per_s_int8",
    } <= record.keys()
    assert [row["memory"] for row in record["speed"]["rows"]] == ["off", "empty", "few", "int8", "int4"]
    assert "`decode_ratio_int8`" in markdown(record)
    assert (tmp_path / "kernels.png").read_bytes().startswith(b"\x89PNG")
    draw(record, tmp_path / "again.png")


def toy_banks(output: Path, *_: object) -> tuple[Bundle, dict[str, Any]]:
    plan = Synthetic("toy", 32e3)
    bundle = write(plan, output / "toy.bundle")
    few = replace(plan.bank, rows=tuple(1 for _ in plan.bank.rows))
    int4 = Synthetic("toy", 32e3, "i4").bank
    found = {
        "few": banks.Bank(few, output / "few", plan.nodes),
        "int8": banks.Bank(plan.bank, output / "toy.bundle/memory", plan.nodes),
        "int4": banks.Bank(int4, output / "int4", plan.nodes),
    }
    for name in ("few", "int4"):
        for _ in banks.make_bank(found[name].config, found[name].directory, plan.nodes):
            pass
    return bundle, found
