"""The benchmarks' level files are valid, of the paper's sizes, used again, and refused where the disk is too small."""

import shutil
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
from bank_files import TINY, tiny_bank

from edge_bench.banks import PAPER, BankConfig, all_nodes, make_bank, require_space, sample_nodes
from edge_runtime.bank import LevelReader
from edge_runtime.errors import InvalidArgumentError, StorageError


@pytest.mark.parametrize(
    ("name", "megabytes"),
    [("160M", (13.8, 3.4, 0.9)), ("410M", (37.7, 9.4, 2.4)), ("1.4B", (113.2, 37.7, 2.4))],
)
def test_blocks_have_the_sizes_of_the_papers_anchors(name: str, megabytes: tuple[float, ...]) -> None:
    for stride, expected in zip(PAPER[name].strides, megabytes, strict=True):
        assert stride / 1e6 == pytest.approx(expected, rel=0.05)


def test_the_whole_bank_of_the_small_anchor_has_the_papers_size() -> None:
    config = PAPER["160M"]
    size = sum(len(n) * s for n, s in zip(all_nodes(config), config.strides, strict=True))
    assert size / 1e9 == pytest.approx(4.6, abs=0.1)


def test_files_are_valid_and_every_checksum_holds(tmp_path: Path) -> None:
    bank = tiny_bank(tmp_path)
    for path, nodes, level in zip(bank.paths, bank.nodes, TINY.levels, strict=True):
        reader = LevelReader(path)
        assert reader.spec == TINY.spec(level, len(nodes))
        assert list(reader.nodes()) == nodes
        assert sum(1 for _ in reader.verify()) == len(nodes)


def test_blocks_are_random_and_the_seed_makes_them_again(tmp_path: Path) -> None:
    banks = {}
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        for _ in make_bank(TINY, tmp_path / name, sample_nodes(TINY), seed):
            pass
        banks[name] = LevelReader(tmp_path / name / "level1.safetensors")
    assert np.array_equal(banks["a"].block_bytes(0), banks["b"].block_bytes(0))
    assert not np.array_equal(banks["a"].block_bytes(0), banks["c"].block_bytes(0))
    assert not np.array_equal(banks["a"].block_bytes(0), banks["a"].block_bytes(1))


def test_files_that_are_there_are_used_again(tmp_path: Path) -> None:
    bank = tiny_bank(tmp_path)
    before = [path.stat().st_mtime_ns for path in bank.paths]
    assert list(make_bank(TINY, tmp_path, bank.nodes)) == []
    assert [path.stat().st_mtime_ns for path in bank.paths] == before


@pytest.mark.parametrize("change", ["seed", "file"])
def test_files_of_another_bank_are_made_again(tmp_path: Path, change: str) -> None:
    bank = tiny_bank(tmp_path)
    if change == "file":
        bank.paths[1].unlink()
    written = list(make_bank(TINY, tmp_path, bank.nodes, seed=1 if change == "seed" else 0))
    assert len(written) == sum(len(nodes) for nodes in bank.nodes)


def test_a_sample_has_siblings_at_both_depths(tmp_path: Path) -> None:
    bank = tiny_bank(tmp_path)
    k = TINY.fanout
    assert {leaf // k for leaf in bank.leaves} == set(bank.nodes[1])
    assert {leaf // k**2 for leaf in bank.leaves} == set(bank.nodes[0])
    assert TINY.path(17 * k + 3) == [(1, 1), (2, 17), (3, 17 * k + 3)]
    assert [bank.nodes[i][row] for i, row in enumerate(bank.rows(k * k + 1))] == [1, 16, 257]


def test_a_bank_of_two_levels_is_no_sample() -> None:
    with pytest.raises(InvalidArgumentError, match="three levels"):
        sample_nodes(BankConfig("flat", 64, 2, (4, 4)))


def test_a_disk_that_is_too_small_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10, 10, 1000))
    with pytest.raises(StorageError, match=r"tiny.*needs .* GB and the disk has .* free"):
        next(make_bank(TINY, tmp_path, sample_nodes(TINY)))
    assert list(tmp_path.iterdir()) == []
    require_space(tmp_path, 1000, "nothing")
