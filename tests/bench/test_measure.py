"""Rounds, ratios and rows, on times that are made up."""

from pathlib import Path

import pytest
from bank_files import tiny_bank

from edge_bench.contestants import Blocks, Contestant, Target
from edge_bench.measure import FEWEST, Ratio, Times, interleave


class Recorder(Contestant):
    """Takes down what is asked of it."""

    def __init__(self, name: str, bank, log: list[tuple[str, str, object]]) -> None:  # type: ignore[no-untyped-def]
        super().__init__(name, bank)
        self._log = log

    def prepare(self, target: Target) -> None:
        self._log.append((self.name, "prepare", None))

    def read(self, target: Target) -> None:
        self._log.append((self.name, "read", target.nodes[-1]))

    def blocks(self) -> Blocks:
        return []

    def forget(self) -> None:
        self._log.append((self.name, "forget", None))


@pytest.mark.parametrize("cold", [True, False])
def test_rounds_take_turns_over_the_same_blocks_in_changing_order(tmp_path: Path, cold: bool) -> None:
    bank = tiny_bank(tmp_path)
    log: list[tuple[str, str, object]] = []
    contestants = [Recorder(name, bank, log) for name in "abc"]
    targets = [Target.of(bank, leaf) for leaf in bank.leaves[:2]]
    times = interleave(contestants, targets, 3, cold)
    assert {name: len(t.seconds) for name, t in times.items()} == {"a": 3, "b": 3, "c": 3}
    reads = [(name, node) for name, verb, node in log if verb == "read"]
    if not cold:
        # Each is led to its blocks once, untimed, before its turn.
        assert reads[::2] == reads[1::2]
        reads = reads[::2]
    one, other = (target.nodes[-1] for target in targets)
    rounds = ["".join(name for name, _ in reads[start : start + 3]) for start in range(0, len(reads), 3)]
    assert len(rounds) == 4  # the first is not counted
    assert all(sorted(order) == ["a", "b", "c"] for order in rounds)
    assert len(set(rounds)) > 1
    assert [node for _, node in reads] == [other] * 3 + [one] * 3 + [other] * 3 + [one] * 3
    for name in "abc":
        verbs = [verb for who, verb, _ in log if who == name]
        assert verbs == ["prepare", "read", "forget"] * (len(verbs) // 3)
    assert all((t.max_cached_bytes is not None) == cold for t in times.values())


def test_a_limit_ends_the_rounds_but_for_the_fewest(tmp_path: Path) -> None:
    bank = tiny_bank(tmp_path)
    targets = [Target.of(bank, bank.leaves[0])]
    times = interleave(
        [Recorder("a", bank, []), Recorder("b", bank, [])], targets, 100, cold=False, limit_s=0
    )
    assert [len(t.seconds) for t in times.values()] == [FEWEST, FEWEST]


def test_a_ratio_is_of_pairs_and_not_of_medians() -> None:
    # A disturbance of ten times hits both in the second round: the ratio of each pair is two all the same.
    slow = Times("slow", 1000, [2.0, 40.0, 2.0, 6.0])
    fast = Times("fast", 1000, [1.0, 20.0, 1.0, 3.0])
    ratio = Ratio.of(slow, fast)
    assert (ratio.over, ratio.median, ratio.q1, ratio.q3, ratio.pairs) == ("slow", 2.0, 2.0, 2.0, 4)


def test_a_row_says_bandwidth_spread_and_whether_it_was_cold() -> None:
    times = Times("x", 10**6, [0.001, 0.002, 0.003], [3 * 10**6] * 3, max_cached_bytes=0)
    row = times.row()
    assert row["median_ms"] == 2.0
    assert row["mb_per_s"] == 500.0
    assert (row["q1_ms"], row["q3_ms"], row["min_ms"], row["spread_percent"]) == (1.5, 2.5, 1.0, 50.0)
    assert row["device_bytes_per_byte"] == 3.0
    assert row["cold"] is True
    times.max_cached_bytes = 10**5
    assert times.row()["cold"] is False
    assert Times("x", 1, [1.0]).row()["cold"] is None


def test_what_was_there_before_a_change_of_topic_shares_nothing(tmp_path: Path) -> None:
    bank = tiny_bank(tmp_path)
    for levels in (None, *(range(level, level + 1) for level in bank.config.levels)):
        for leaf in bank.leaves:
            target = Target.of(bank, leaf, levels)
            other = target.elsewhere(bank)
            assert [level for level, _ in other.nodes] == [level for level, _ in target.nodes]
            assert not set(other.nodes) & set(target.nodes)
            assert other.bytes(bank) == target.bytes(bank)
