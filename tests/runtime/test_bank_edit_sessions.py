"""What open sessions see of changes, and the privacy claim: a blocked node is neither routed to nor read."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from bank_bundle import PAGE, blocks, make_bundle, write_level
from safetensors.numpy import save_file

from edge_runtime import Runtime, Session
from edge_runtime import administration as bank
from edge_runtime import runtime as runtime_module
from edge_runtime.bundle import Bundle
from edge_runtime.errors import BlockedError
from edge_runtime.pager import Pager, StorageKind

PROMPT = "Hafnium. Hafnium is a transition metal in period 6 of the periodic table. Its atomic number is"
STORAGES: list[StorageKind] = ["direct", "mapped"]


@pytest.fixture
def copy(tiny_bundle: Path, tmp_path: Path) -> Path:
    """A copy to change; the 90 MB encoder stays one file."""
    copy = tmp_path / "copy.bundle"
    shutil.copytree(tiny_bundle, copy, copy_function=os.link)
    return copy


def answer(session: Session) -> str:
    return "".join(session.generate(PROMPT, stop=[], max_tokens=6))


@pytest.mark.parametrize("storage", STORAGES)
def test_an_open_pager_keeps_its_revision(tmp_path: Path, storage: StorageKind) -> None:
    """The files that it has open are unlinked; it has room for one block, so that each is read from them."""
    bundle = make_bundle(tmp_path / "a.bundle")
    before = blocks(bundle)
    opened = Bundle.open(bundle)
    pager = Pager(opened.level_paths, PAGE, storage, opened.blocked, opened.removed)
    bank.replace(bundle, [(2, 7)], write_level(tmp_path / "level2", 2, [7], variant=1))
    bank.remove(bundle, [(1, 1), (2, 3)], erase=True)
    bank.block(bundle, [(0, 0)])
    assert not (bundle / "memory/level2.safetensors").exists()
    for (level, node), block in before.items():
        with pager.fetch([(level, node)]) as lease:
            lease.wait()
            assert lease.view(level).tobytes() == block, (level, node)


@pytest.mark.parametrize("storage", STORAGES)
def test_an_open_session_keeps_its_revision_and_a_new_one_has_the_next(
    copy: Path, storage: StorageKind
) -> None:
    with Session.open(copy, storage=storage) as old:
        before = answer(old)
        path = old.stats.path
        assert old.runtime.pager is not None
        old.close()
        old.runtime.pager.shrink(10**9)
        shape = (2, 16, 64)  # layers, r of level 2, d
        block = {f"w{i}": np.random.default_rng(i).standard_normal(shape, np.float32) for i in (1, 2, 3)}
        save_file(block, copy.parent / "block")
        bank.replace(copy, [(2, path[1])], copy.parent / "block")
        bank.compact(copy)
        assert answer(old) == before
        assert old.stats.bytes_read > 0
        with Session.open(copy, storage=storage) as new:
            assert answer(new) != before
            assert new.stats.path == path


def test_a_blocked_subtree_is_neither_routed_to_nor_read(copy: Path) -> None:
    with Session.open(copy) as session:
        before = answer(session)
        path = session.stats.path
    bank.block(copy, [(1, path[0])])
    with Session.open(copy) as session:
        assert answer(session) != before
        assert session.stats.path[0] != path[0]
        assert session.stats.path[1] // 4 == session.stats.path[0]
        pager = session.runtime.pager
        assert pager is not None
        for node in [(1, path[0])] + [(2, 4 * path[0] + child) for child in range(4)]:
            with pytest.raises(BlockedError, match="blocked"):
                pager.fetch([node])
    bank.unblock(copy, [(1, path[0])])
    with Session.open(copy) as session:
        assert answer(session) == before


def test_a_removed_node_is_still_routed_to_and_brings_nothing(copy: Path) -> None:
    with Session.open(copy) as session:
        before = answer(session)
        path = session.stats.path
        with_both = session.stats.bytes_read
    for change in (lambda: bank.remove(copy, [(2, path[1])]), lambda: bank.compact(copy)):
        change()
        with Session.open(copy) as session:
            assert answer(session) != before
            assert session.stats.path == path
            assert 0 < session.stats.bytes_read < with_both


def test_a_runtime_that_is_opened_while_the_bank_changes_has_the_new_revision(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = runtime_module.Pager
    calls = 0

    def late(*arguments: object) -> object:
        nonlocal calls
        calls += 1
        if calls == 1:
            bank.remove(copy, [(2, 3)], erase=True)
        return real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(runtime_module, "Pager", late)
    assert Runtime.open(copy).bundle.manifest.revision == 2
