"""The whole of iobench on a tiny bank: the record's keys, right bytes from every contestant, tables and picture."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from bank_files import TINY, tiny_bank

from edge_bench import iobench, plot, report, suite
from edge_bench._native import has_io_uring
from edge_bench.banks import Bank
from edge_bench.contestants import PagerContestant, Target
from edge_bench.file_readers import MemmapContestant, make_peers
from edge_bench.leases import sibling_switches, switches
from edge_runtime.errors import StorageError

PLAN = suite.Plan(
    configs=("tiny",),
    chunks=(16384, 65536),
    depths=(1, 3),
    sweep_rounds=1,
    finalists=3,
    unverified=suite.STORAGES,
    rounds=2,
    limit_s=60,
    leases=5,
    blocks=True,
    lanes=(1, 2),
)
HEADLINE = {
    "cold_over_raw",
    "cold_over_raw_fresh",
    "cold_over_memmap",
    "cold_over_mmap_ninja",
    "cold_over_safetensors",
    "cold_over_torch_load",
    "verify_share",
    "warm_lease_us",
    "warm_lease_cpp_us",
}
ROW = {
    "name": str,
    "bytes": int,
    "rounds": int,
    "median_ms": float,
    "q1_ms": float,
    "q3_ms": float,
    "min_ms": float,
    "spread_percent": float,
    "mb_per_s": float,
}


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Bank:
    return tiny_bank(tmp_path_factory.mktemp("bank"))


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of `iobench --quick --json`, with the tiny bank in the place of the paper's."""
    directory = tmp_path_factory.mktemp("iobench")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(iobench.PAPER, "tiny", TINY)
        patch.setattr(suite, "QUICK", PLAN)
        assert iobench.main(["--quick", "--json", "-o", str(directory)]) == 0
    return directory


@pytest.fixture(scope="module")
def record(output: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((output / "iobench.json").read_text())
    return found


def test_the_headline_has_every_key(record: dict[str, Any]) -> None:
    assert record.keys() >= HEADLINE
    assert all(record[key] > 0 for key in HEADLINE)
    assert record["schema"] == 1
    assert record["quick"] is True
    assert {
        "machine",
        "load_average",
        "versions",
        "revision",
        "command",
        "seconds",
        "configs",
    } <= record.keys()
    assert "python -m edge_bench.iobench --quick --json" in record["command"]
    assert record["machine"]["disk"]["filesystem"]


def test_switches_read_exactly_the_differing_levels(record: dict[str, Any]) -> None:
    _, second, third = TINY.strides
    assert record["sibling_switch_bytes"] == {
        "level2_branch": third,
        "level1_branch": second + third,
        "expected": {"level2_branch": third, "level1_branch": second + third},
        "exact": True,
    }


def test_every_reader_has_a_row_of_the_same_form(record: dict[str, Any]) -> None:
    config = record["configs"]["tiny"]
    rows = [*config["cold"], *config["warm"], *config["raw_sweep"], *config["lanes"]]
    rows += [row for level in config["single_blocks"].values() for row in level]
    assert all({key: type(row[key]) for key in ROW} == ROW for row in rows)
    assert all(row["cold"] is not None for row in config["cold"])
    assert all(row["cold"] is None for row in config["warm"])
    # Four settings an engine, of which three in all run beside the pager, and their likes with fresh memory.
    assert len(config["raw_sweep"]) == 4 * (2 if has_io_uring() else 1)
    assert sum(row["name"].startswith("raw") for row in config["cold"]) == 6
    assert {row["name"] for row in config["warm"]} == {
        *(f"pager {kind}{kept}" for kind in suite.STORAGES for kept in ("", ", unverified")),
        "pager auto, from empty",
        "np.memmap copy",
        "mmap-ninja copy",
        "safetensors get_slice (np)",
        "safetensors get_slice (pt)",
        "torch.load(mmap=True)",
    }
    assert [row["bytes"] for row in (level[0] for level in config["single_blocks"].values())] == list(
        TINY.strides
    )
    assert config["backends"]["warm"]["pager mapped"]["backend"] == "mapped"


def test_the_tables_hold_every_row(record: dict[str, Any], output: Path) -> None:
    text = (output / "iobench.md").read_text()
    config = record["configs"]["tiny"]
    for row in [*config["cold"], *config["warm"], *config["lanes"]]:
        assert f"| {row['name']}" in text
    for key in report.RATIOS:
        assert f"`{key}`" in text
    widths = {}
    for line in text.splitlines():
        if not line.startswith("|"):
            widths = {}
        else:
            widths.setdefault(line.count("|"), line)
            assert len(widths) <= 1, line


def test_rows_that_were_not_cold_are_marked(record: dict[str, Any]) -> None:
    row = record["configs"]["tiny"]["cold"][0]
    assert "not cold" in report.times_table([row | {"cold": False}])
    assert "not cold" not in report.times_table([row | {"cold": True}])


def test_the_picture_is_one(record: dict[str, Any], output: Path, tmp_path: Path) -> None:
    assert (output / "iobench.png").read_bytes().startswith(b"\x89PNG")
    without_uring = json.loads(json.dumps(record))
    config = without_uring["configs"]["tiny"]
    config["raw_sweep"] = [row for row in config["raw_sweep"] if row["engine"] == "pread"]
    plot.draw(without_uring, tmp_path / "pread.png")
    assert (tmp_path / "pread.png").stat().st_size > 10_000


def test_a_contestant_that_reads_something_else_is_found(bank: Bank) -> None:
    class Wrong(MemmapContestant):
        def blocks(self) -> list[Any]:
            return [block + 1 for block in super().blocks()]

    target = Target.of(bank, bank.leaves[3])
    suite.require_right_bytes([*make_peers(bank), PagerContestant(bank, "direct")], target)
    with pytest.raises(StorageError, match="memmap"):
        suite.require_right_bytes([Wrong(bank)], target)


def test_copies_for_peers_are_used_again_and_follow_the_bank(tmp_path: Path) -> None:
    bank = tiny_bank(tmp_path)
    files = [path for peer in make_peers(bank) for path in peer.files]
    before = [path.stat().st_mtime_ns for path in files]
    make_peers(bank)
    assert [path.stat().st_mtime_ns for path in files] == before
    (tmp_path / "bank.json").write_text("{}")
    peers = make_peers(tiny_bank(tmp_path))
    suite.require_right_bytes(peers, Target.of(bank, bank.leaves[0]))
    assert [path.stat().st_mtime_ns for path in files] != before


def test_switch_pairs_share_the_path_above(bank: Bank) -> None:
    for switch in switches(bank):
        assert len(switch.pairs) == 8
        for one, other in switch.pairs:
            shared = [a == b for a, b in zip(TINY.path(one), TINY.path(other), strict=True)]
            assert shared == [level < switch.first_level for level in TINY.levels]


def test_switches_run_under_a_budget_of_one_path(bank: Bank) -> None:
    record = sibling_switches(bank)
    assert record["budget_bytes"] == TINY.path_bytes
    assert record["exact"] is True


@pytest.mark.parametrize("arguments", [["--fast"], ["-o"], ["extra"]])
def test_bad_usage_is_one_line(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        iobench.main(arguments)
    assert raised.value.code == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_an_output_that_is_a_file_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("x")
    assert iobench.main(["--quick", "-o", str(tmp_path / "file")]) == 1
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert "file" in lines[0]


def test_a_missing_peer_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "mmap_ninja", None)
    monkeypatch.delitem(sys.modules, "edge_bench.file_readers")
    monkeypatch.delitem(sys.modules, "edge_bench.suite")
    assert iobench.main(["--quick", "-o", str(tmp_path)]) == 1
    error = capsys.readouterr().err.strip()
    assert "edge-runtime[bench]" in error
    assert len(error.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []
