"""Changes of a bank: what each does to the blocks, the state and the files."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from bank_bundle import FANOUT, LAYERS, PAGE, ROWS, block_of, blocks, check, make_bundle, values, write_level
from safetensors.numpy import save_file

from edge_runtime import administration as bank
from edge_runtime.bank_state import BankState
from edge_runtime.bundle import Bundle
from edge_runtime.errors import (
    BadFormatError,
    BlockedError,
    BusyError,
    ChecksumError,
    EdgeRuntimeError,
    InvalidArgumentError,
    NotFoundError,
    StorageError,
    UnsupportedError,
)
from edge_runtime.pager import Pager


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return make_bundle(tmp_path / "a.bundle")


def tensors(path: Path, block: np.ndarray, dtype: type = np.float32) -> Path:
    """A block as training code would save it."""
    save_file({f"w{i + 1}": block[:, i].astype(dtype) for i in range(3)}, path)
    return path


def pager_of(directory: Path) -> Pager:
    opened = Bundle.open(directory)
    return Pager(opened.level_paths, 10 * PAGE, "direct", opened.blocked, opened.removed)


def holds(directory: Path, block: bytes) -> bool:
    """Whether the bytes are in any file of the directory."""
    return any(block[:256] in path.read_bytes() for path in directory.rglob("*") if path.is_file())


def test_a_blocked_node_and_its_subtree_are_refused_until_it_is_unblocked(bundle: Path) -> None:
    before = blocks(bundle)
    outcome = bank.block(bundle, [(1, 1), (2, 9)])
    assert (outcome.previous_revision, outcome.revision) == (1, 2)
    opened = check(bundle)
    assert opened.manifest.revision == 2
    assert opened.blocked == [(1, 1), (2, 9)]
    pager = pager_of(bundle)
    for node in ((1, 1), (2, 4), (2, 7), (2, 9)):
        with pytest.raises(BlockedError):
            pager.fetch([node])
    pager.fetch([(1, 0), (2, 3), (2, 8)]).wait()
    bank.unblock(bundle, [(1, 1)])
    pager_of(bundle).fetch([(1, 1), (2, 4)]).wait()
    assert check(bundle).blocked == [(2, 9)]
    assert blocks(bundle) == before


def test_what_is_so_already_makes_no_revision(bundle: Path) -> None:
    bank.block(bundle, [(1, 1)])
    bank.remove(bundle, [(2, 3)])
    text = (bundle / "manifest.json").read_bytes()
    for outcome, note in (
        (bank.block(bundle, [(1, 1)]), "blocked already: 1:1"),
        (bank.unblock(bundle, [(1, 2)]), "not blocked: 1:2"),
        (bank.remove(bundle, [(2, 3)]), "removed already: 2:3"),
    ):
        assert outcome.revision == outcome.previous_revision == 3
        assert outcome.notes == (note,)
    assert (bundle / "manifest.json").read_bytes() == text
    # The rest of what is asked is done.
    assert bank.block(bundle, [(1, 1), (1, 2)]).notes == ("blocked already: 1:1",)
    assert check(bundle).blocked == [(1, 1), (1, 2)]


def test_a_node_that_an_ancestor_shuts_cannot_be_unblocked_alone(bundle: Path) -> None:
    bank.block(bundle, [(1, 1), (2, 5)])
    with pytest.raises(InvalidArgumentError, match="2:5 lies below 1:1"):
        bank.unblock(bundle, [(2, 5)])
    bank.unblock(bundle, [(2, 5), (1, 1)])
    assert check(bundle).blocked == []


def test_a_level_of_the_tree_without_memory_can_be_blocked(bundle: Path) -> None:
    bank.block(bundle, [(3, 63)])
    assert check(bundle).blocked == [(3, 63)]


@pytest.mark.parametrize("node", [(1, 4), (2, 16), (4, 0), (1, -1)])
def test_a_node_that_is_not_there(bundle: Path, node: tuple[int, int], tmp_path: Path) -> None:
    for change in (
        lambda: bank.block(bundle, [(1, 0), node]),
        lambda: bank.unblock(bundle, [node]),
        lambda: bank.remove(bundle, [node]),
        lambda: bank.replace(bundle, [node], tensors(tmp_path / "b", values(1, 1))),
    ):
        with pytest.raises(NotFoundError, match=rf"a.bundle: no (level|node) {node[0]}"):
            change()
    assert check(bundle).manifest.revision == 1


def test_a_removed_block_is_hidden_at_once_and_gone_after_compact(bundle: Path) -> None:
    before = blocks(bundle)
    bank.remove(bundle, [(2, 3), (1, 2)])
    assert blocks(bundle) == {node: block for node, block in before.items() if node not in [(2, 3), (1, 2)]}
    with pytest.raises(BlockedError):
        pager_of(bundle).fetch([(2, 3)])
    pager_of(bundle).fetch([(2, 8)]).wait()  # children of 1:2 keep theirs
    assert holds(bundle, before[2, 3])
    check(bundle)

    outcome = bank.compact(bundle)
    assert not holds(bundle, before[2, 3])
    assert not holds(bundle, before[1, 2])
    assert blocks(bundle) == {node: block for node, block in before.items() if node not in [(2, 3), (1, 2)]}
    assert check(bundle).removed == [(1, 2), (2, 3)]
    assert outcome.bytes_freed == outcome.bytes_written + 2 * (PAGE + 8 * len(LAYERS))
    with pytest.raises(BlockedError):  # still: that it was removed is not forgotten
        pager_of(bundle).fetch([(2, 3)])
    assert bank.compact(bundle).revision == outcome.revision


def test_remove_can_erase_in_one_step(bundle: Path) -> None:
    before = blocks(bundle)
    outcome = bank.remove(bundle, [(2, 3)], erase=True)
    assert outcome.revision == 2
    assert not holds(bundle, before.pop((2, 3)))
    assert blocks(bundle) == before
    opened = check(bundle)
    assert opened.manifest.memory is not None
    # The levels that nothing was removed from are as they were.
    assert [level.files for level in opened.manifest.memory.levels] == [
        ("memory/level0.safetensors",),
        ("memory/level1.safetensors",),
        ("memory/level2-2.safetensors",),
    ]


def test_a_level_may_lose_its_last_block(bundle: Path) -> None:
    bank.remove(bundle, [(0, 0)], erase=True)
    assert (0, 0) not in blocks(bundle)
    check(bundle)
    pager_of(bundle).fetch([(1, 0)]).wait()


def test_a_node_without_a_block_cannot_be_removed(bundle: Path) -> None:
    with pytest.raises(NotFoundError, match="2:15 has no block"):
        bank.remove(bundle, [(2, 15)])
    with pytest.raises(NotFoundError, match="no blocks of level 3; it has those of 0, 1, 2"):
        bank.remove(bundle, [(3, 1)])


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_a_block_is_replaced_by_tensors(bundle: Path, tmp_path: Path, dtype: type) -> None:
    before = blocks(bundle)
    block = values(9, 9).astype(dtype).astype(np.float32)
    bank.replace(bundle, [(2, 3)], tensors(tmp_path / "block.safetensors", block, dtype))
    opened = check(bundle)
    assert opened.manifest.memory is not None
    level = opened.manifest.memory.level(2)
    assert level is not None
    assert level.files == ("memory/level2.safetensors", "memory/level2-2.safetensors")
    # An overlay holds the replaced node only.
    assert (bundle / level.files[1]).stat().st_size == 2 * PAGE + 8 * len(LAYERS) + 4 * FANOUT**2
    own = tmp_path / "own"
    from edge_runtime import _core
    from edge_runtime.bank import LevelReader

    writer = _core.LevelWriter(str(own), 2, FANOUT, "i8", block.shape[-1], ROWS, list(LAYERS), 1)
    writer.append(3, block)
    writer.finish()
    assert blocks(bundle) == before | {(2, 3): LevelReader(own).block_bytes(3).tobytes()}
    with pager_of(bundle).fetch([(2, 3)]) as lease:
        lease.wait()
        assert lease.view(2).tobytes() == blocks(bundle)[2, 3]


def test_bf16_tensors_are_read(bundle: Path, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file as save_torch

    block = torch.from_numpy(values(9, 9)).to(torch.bfloat16)
    save_torch({f"w{i + 1}": block[:, i].contiguous() for i in range(3)}, tmp_path / "b")
    bank.replace(bundle, [(2, 3)], tmp_path / "b")
    once = blocks(bundle)[2, 3]
    bank.replace(bundle, [(2, 3)], tensors(tmp_path / "f", block.float().numpy()))
    assert blocks(bundle)[2, 3] == once


def test_blocks_come_from_a_level_file_and_from_a_bundle(bundle: Path, tmp_path: Path) -> None:
    before = blocks(bundle)
    write_level(tmp_path / "level2", 2, [9, 3, 15], variant=1)
    bank.replace(bundle, [(2, 15), (2, 3)], tmp_path / "level2")
    assert blocks(bundle) == before | {(2, n): block_of(2, n, 1) for n in (3, 15)}
    other = make_bundle(tmp_path / "other.bundle")
    bank.replace(other, [(2, 5)], write_level(tmp_path / "more", 2, [5], variant=2))
    bank.replace(bundle, [(1, 0), (2, 3), (2, 5)], other)  # of two levels
    assert blocks(bundle) == before | {(2, 15): block_of(2, 15, 1), (2, 5): block_of(2, 5, 2)}
    check(bundle)


def test_a_block_of_another_dtype_is_quantised(bundle: Path, tmp_path: Path) -> None:
    write_level(tmp_path / "level2", 2, [3], dtype="f32", variant=1)
    bank.replace(bundle, [(2, 3)], tmp_path / "level2")
    assert blocks(bundle)[2, 3] == block_of(2, 3, 1)
    check(bundle)


def test_a_removed_node_gets_a_block_again(bundle: Path, tmp_path: Path) -> None:
    before = blocks(bundle)
    bank.remove(bundle, [(2, 3)])
    bank.replace(bundle, [(2, 3)], write_level(tmp_path / "level2", 2, [3], variant=1))
    assert blocks(bundle) == before | {(2, 3): block_of(2, 3, 1)}
    assert check(bundle).removed == []
    bank.block(bundle, [(1, 0)])
    outcome = bank.replace(bundle, [(2, 3)], write_level(tmp_path / "again", 2, [3], variant=2))
    assert outcome.notes == ("still blocked: 2:3",)


def test_compact_folds_overlays_as_they_are(bundle: Path, tmp_path: Path) -> None:
    for variant in (1, 2):
        bank.replace(bundle, [(2, 3), (2, 15)], write_level(tmp_path / "l", 2, [3, 15], variant=variant))
    bank.remove(bundle, [(2, 15)])
    before = blocks(bundle)
    hidden = bank.status(bundle).levels[2]
    assert hidden.blocks == 15 - 1 + 1
    assert hidden.reclaimable_bytes == (15 + 2 + 2 - 15) * PAGE
    reports: list[tuple[int, int]] = []
    bank.compact(bundle, lambda done, total: reports.append((done, total)))
    assert reports == [(PAGE * i, PAGE * 15) for i in range(1, 16)]
    assert blocks(bundle) == before
    assert not holds(bundle, block_of(2, 3, 0))
    assert not holds(bundle, block_of(2, 3, 1))
    level = bank.status(bundle).levels[2]
    assert level.reclaimable_bytes == 0
    assert level.files == ("memory/level2-5.safetensors",)
    check(bundle)


def test_a_level_is_added(bundle: Path, tmp_path: Path) -> None:
    file = write_level(tmp_path / "personal", 3, [17, 3], dtype="f32")
    bank.add_level(bundle, file)
    opened = check(bundle)
    assert opened.manifest.memory is not None
    assert [level.level for level in opened.manifest.memory.levels] == [0, 1, 2, 3]
    assert blocks(bundle)[3, 17] == block_of(3, 17, dtype="f32")
    assert file.exists()
    pager_of(bundle).fetch([(1, 1), (2, 4), (3, 17)]).wait()


def test_a_level_of_another_bank_is_refused(bundle: Path, tmp_path: Path) -> None:
    deeper = write_level(tmp_path / "deeper", 4, [1])
    for file, reason in (
        (deeper, "below the router's tree of depth 3"),
        (write_level(tmp_path / "two", 2, [1]), "the bundle has a level 2"),
        (write_level(tmp_path / "wide", 3, [1], d_model=64), "its d_model is 64"),
        (write_level(tmp_path / "f16", 3, [1], dtype="f16"), "its dtype is f16"),
    ):
        with pytest.raises(InvalidArgumentError, match=reason):
            bank.add_level(bundle, file)
    with pytest.raises(NotFoundError, match="no such file"):
        bank.add_level(bundle, tmp_path / "nothing")
    with pytest.raises(BadFormatError, match="block: not a bank level file"):
        bank.add_level(bundle, tensors(tmp_path / "block", values(3, 1)))
    data = bytearray(write_level(tmp_path / "damaged", 3, [1, 2]).read_bytes())
    data[2 * PAGE + 300] ^= 1
    (tmp_path / "damaged").write_bytes(data)
    with pytest.raises(ChecksumError, match="damaged: level 3, node 2, row 1"):
        bank.add_level(bundle, tmp_path / "damaged")
    assert check(bundle).manifest.revision == 1


def test_a_block_that_does_not_fit_is_refused(bundle: Path, tmp_path: Path) -> None:
    infinite = values(1, 1)
    infinite[1, 2, 0, 0] = np.inf
    save_file({"w1": np.zeros(3, np.float32)}, tmp_path / "one")
    save_file({f"w{i}": np.zeros((2, ROWS, 32), np.float64) for i in (1, 2, 3)}, tmp_path / "f64")
    (tmp_path / "text").write_text("no safetensors")
    for file, reason in (
        (tensors(tmp_path / "narrow", values(1, 1)[..., :16]), "w1 is of .2, 2, 16.; a block of this level"),
        (tensors(tmp_path / "inf", infinite), "inf: it cannot be stored"),
        (tmp_path / "one", "it holds w1; a block of this level is w1, w2 and w3 of .2, 2, 32."),
        (tmp_path / "f64", "f64: w1 is F64"),
        (tmp_path / "text", "not a safetensors file"),
        (tmp_path / "nothing", "no such file"),
        (write_level(tmp_path / "level1", 1, [1]), "its level is 1, the bank's 2"),
        (write_level(tmp_path / "rows", 2, [3], rows=4), "its rows_per_block is 4"),
        (write_level(tmp_path / "sparse", 2, [4]), "it has no block of 2:3"),
    ):
        with pytest.raises(EdgeRuntimeError, match=reason):
            bank.replace(bundle, [(2, 3)], file)
    with pytest.raises(InvalidArgumentError, match="it holds one block"):
        bank.replace(bundle, [(2, 3), (2, 4)], tensors(tmp_path / "block", values(2, 3)))
    other = make_bundle(tmp_path / "other.bundle")
    bank.remove(other, [(2, 3)])
    with pytest.raises(NotFoundError, match="2:3 is removed there"):
        bank.replace(bundle, [(2, 3)], other)
    assert check(bundle).manifest.revision == 1


def test_a_damaged_block_stops_a_compaction_and_says_where(bundle: Path) -> None:
    path = bundle / "memory/level2.safetensors"
    data = bytearray(path.read_bytes())
    data[PAGE * (1 + 7) + 100] ^= 1
    path.write_bytes(data)
    bank.remove(bundle, [(2, 3)])
    with pytest.raises(ChecksumError, match=r"level2.safetensors: level 2, node 7, row 7, layer 0"):
        bank.compact(bundle)
    assert Bundle.open(bundle).manifest.revision == 2
    bank.remove(bundle, [(2, 7)])
    bank.compact(bundle)
    check(bundle)


def test_a_bundle_without_memory_has_no_bank(bundle: Path, tmp_path: Path) -> None:
    record = json.loads((bundle / "manifest.json").read_text())
    (bundle / "manifest.json").write_text(json.dumps(record | {"memory": None}))
    for change in (
        lambda: bank.block(bundle, [(1, 0)]),
        lambda: bank.compact(bundle),
        lambda: bank.add_level(bundle, write_level(tmp_path / "l", 3, [1])),
        lambda: bank.status(bundle),
    ):
        with pytest.raises(UnsupportedError, match="no memory bank"):
            change()


def test_what_a_newer_writer_added_to_the_manifest_stays(bundle: Path) -> None:
    before = json.loads((bundle / "manifest.json").read_text())
    bank.block(bundle, [(1, 0)])
    after = json.loads((bundle / "manifest.json").read_text())
    assert after["later"] == {"kept": [1]}
    changed = {key for key in before if before[key] != after[key]}
    assert changed == {"revision", "state", "files"}


def test_two_administrators_at_once(bundle: Path) -> None:
    descriptor = os.open(bundle, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    with pytest.raises(BusyError, match="another command is changing it"):
        bank.block(bundle, [(1, 0)])
    bank.status(bundle)  # reading needs no lock
    os.close(descriptor)
    bank.block(bundle, [(1, 0)])
    check(bundle)


def test_a_manifest_that_changed_meanwhile_is_not_overwritten(bundle: Path) -> None:
    bank.remove(bundle, [(2, 3)])
    path = bundle / "manifest.json"
    other = path.read_text().replace('"name": "golden"', '"name": "other"')

    def change(_done: int, _total: int) -> None:
        path.write_text(other)

    with pytest.raises(BusyError, match="changed meanwhile"):
        bank.compact(bundle, change)
    assert path.read_text() == other
    check(bundle)


def test_an_interrupt_leaves_the_old_revision(bundle: Path) -> None:
    bank.remove(bundle, [(2, 3)])
    before = {path: path.read_bytes() for path in bundle.rglob("*") if path.is_file()}

    def interrupt(done: int, _total: int) -> None:
        if done > 5 * PAGE:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bank.compact(bundle, interrupt)
    assert {path: path.read_bytes() for path in bundle.rglob("*") if path.is_file()} == before


def test_files_that_are_not_ours_are_never_removed(bundle: Path, tmp_path: Path) -> None:
    mine = {
        bundle / name: name.encode()
        for name in ("notes.txt", "memory/level1.safetensors.old", "memory/level3.safetensors", "x.partial")
    }
    for path, data in mine.items():
        path.write_bytes(data)
    bank.remove(bundle, [(2, 3)], erase=True)
    bank.replace(bundle, [(2, 3)], write_level(tmp_path / "l", 2, [3]))
    bank.compact(bundle)
    assert {path: path.read_bytes() for path in mine} == mine
    # Nor overwritten.
    path = bundle / "memory/state-5.json"
    path.write_text("mine")
    with pytest.raises(InvalidArgumentError, match=r"state-5.json: it is in the way"):
        bank.block(bundle, [(1, 0)])
    assert path.read_text() == "mine"
    assert Bundle.open(bundle).manifest.revision == 4


@pytest.mark.parametrize(
    "text",
    ["{", "[]", '{"format": "edge-runtime.journal", "schema": 2, "files": []}']
    + [
        json.dumps({"format": "edge-runtime.journal", "schema": 1, "files": [name]})
        for name in ("../secret", "/etc/secret", "manifest.json", 7)
    ],
)
def test_a_journal_cannot_reach_beyond_the_bundle(bundle: Path, text: str) -> None:
    secret = bundle.parent / "secret"
    secret.write_text("kept")
    (bundle / "memory/journal.json").write_text(text)
    with pytest.raises(BadFormatError, match=r"journal.json: not a journal"):
        bank.block(bundle, [(1, 0)])
    assert secret.exists()
    Bundle.open(bundle)


def test_a_level_file_behind_a_link_keeps_its_bytes_and_the_command_says_so(
    bundle: Path, tmp_path: Path
) -> None:
    for name, link in (("level1", os.symlink), ("level2", os.link)):
        path = bundle / f"memory/{name}.safetensors"
        shutil.move(path, tmp_path / name)
        link(tmp_path / name, path)
    outcome = bank.remove(bundle, [(1, 1), (2, 3)], erase=True)
    assert outcome.notes == (
        f"{bundle}/memory/level1.safetensors was a link: {tmp_path}/level1 keeps its bytes",
        f"{bundle}/memory/level2.safetensors had other names (hard links): they keep its bytes",
    )
    assert (tmp_path / "level1").exists()
    check(bundle)


def test_a_full_disk_is_noticed_before_anything_is_written(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bank.remove(bundle, [(2, 3)])
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9, PAGE))
    with pytest.raises(
        StorageError, match=f"{14 * PAGE:,} bytes are needed beside the old files, {PAGE:,} are"
    ):
        bank.compact(bundle)
    check(bundle)


def test_a_bundle_that_changes_while_it_is_opened_is_opened_again(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edge_runtime import bundle as module

    size_of = module._size_of
    calls = 0

    def first_time(file: Path) -> int:
        nonlocal calls
        calls += 1
        if calls == 1:  # its manifest is read, its files are not yet looked at
            bank.remove(bundle, [(2, 3)], erase=True)
        return size_of(file)

    monkeypatch.setattr(module, "_size_of", first_time)
    assert Bundle.open(bundle).manifest.revision == 2


def test_a_state_file_is_read_strictly() -> None:
    state = BankState(frozenset({(2, 5), (1, 1)}), frozenset({(2, 9)}))
    assert BankState.parse(state.to_text(4)) == state
    assert json.loads(state.to_text(4))["blocked"] == [[1, 1], [2, 5]]
    golden = Path(__file__).parents[1] / "format/golden/state-1.json"
    assert BankState.parse(golden.read_text()).to_text(1) == golden.read_text()
    for damage in ('"blocked": [[1]]', '"blocked": [[1, "2"]]', '"blocked": [[1, -2]]', '"blocked": 1'):
        with pytest.raises(BadFormatError, match="'blocked' is not a list"):
            BankState.parse(golden.read_text().replace('"blocked": [[1, 2]]', damage))
    for text in ("", "[]", "{}", "[" * 100_000):
        with pytest.raises(BadFormatError, match="not a state file"):
            BankState.parse(text)
    with pytest.raises(UnsupportedError, match="update edge-runtime"):
        BankState.parse(golden.read_text().replace('"schema": 1', '"schema": 2'))
