"""Taught blocks put into a bundle, forgotten again, and carried encrypted to another copy."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from bank_bundle import DEPTH, FANOUT, blocks, check, make_bundle, values

from edge_runtime import _core
from edge_runtime.administration.provenance import Taught, Teaching
from edge_runtime.administration.teaching import Lesson, forget, put
from edge_runtime.bundle import Bundle
from edge_runtime.cli.main import main
from edge_runtime.trees import TreeArrays

LEVEL = DEPTH + 1
A, B = "a" * 64, "b" * 64


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return make_bundle(tmp_path / "a.bundle")


def tree_of(directory: Path) -> TreeArrays:
    opened = Bundle.open(directory)
    assert opened.manifest.router is not None
    return TreeArrays.read(opened.path_of(opened.manifest.router.tree))


def teach_personally(directory: Path) -> None:
    """Two blocks below leaf 5: 20 learnt from a.txt, 21 from a.txt and b.txt."""
    tree = tree_of(directory).deepened(FANOUT)
    tree.documents[LEVEL - 1][[20, 21, 22]] = 1
    tree.centroids[LEVEL - 1][[20, 21, 22]] = np.arange(9).reshape(3, 3)
    documents = [Taught("a.txt", A, ((LEVEL, 20), (LEVEL, 21))), Taught("b.txt", B, ((LEVEL, 21),))]
    learnt = {20: values(LEVEL, 20)[:, :, :1], 21: values(LEVEL, 21)[:, :, :1]}
    put(directory, Lesson(LEVEL, learnt, documents, tree))


def one_line(capsys: pytest.CaptureFixture[str], arguments: list[object], *parts: str) -> None:
    assert main(list(map(str, arguments))) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("edge-runtime: ")
    assert err.count("\n") == 1, err
    assert "internal error" not in err
    for part in parts:
        assert part in err


def test_a_personal_level_is_a_sparse_level_below_the_tree(bundle: Path) -> None:
    before = blocks(bundle)
    teach_personally(bundle)
    opened = check(bundle)
    after = blocks(bundle)
    assert {node: after[node] for node in before} == before
    assert after.keys() - before.keys() == {(LEVEL, 20), (LEVEL, 21)}
    assert opened.manifest.router is not None
    assert opened.manifest.router.depth == LEVEL
    level = opened.manifest.memory and opened.manifest.memory.level(LEVEL)
    assert level is not None
    assert (level.rows, level.dtype, level.nodes) == (1, "i8", FANOUT**LEVEL)
    tree = _core.Tree(str(opened.path_of(opened.manifest.router.tree)))
    # A leaf that was not taught ends where it did.
    other = next(row for row in tree_of(bundle).centroids[2] if tree.descend(row)[0][2] != 5)
    assert len(tree.descend(other)[0]) == DEPTH


def test_an_overlay_is_added_where_the_personal_level_is_there(bundle: Path) -> None:
    teach_personally(bundle)
    tree = tree_of(bundle)
    tree.documents[LEVEL - 1][40] = 1
    put(
        bundle,
        Lesson(LEVEL, {40: values(LEVEL, 40)[:, :, :1]}, [Taught("c.txt", "c" * 64, ((LEVEL, 40),))], tree),
    )
    check(bundle)
    assert {(LEVEL, 20), (LEVEL, 21), (LEVEL, 40)} <= blocks(bundle).keys()
    assert [one.name for one in Teaching.read(Bundle.open(bundle)).documents] == ["a.txt", "b.txt", "c.txt"]


def test_forgetting_erases_personal_blocks_and_nothing_else(bundle: Path) -> None:
    before, tree = blocks(bundle), tree_of(bundle)
    teach_personally(bundle)
    taught = blocks(bundle)
    found = forget(bundle, documents=["b.txt"])
    assert (found.removed, found.restored, found.also) == (((LEVEL, 21),), (), ("a.txt",))
    check(bundle)
    assert blocks(bundle) == {node: block for node, block in taught.items() if node != (LEVEL, 21)}
    left = Teaching.read(Bundle.open(bundle)).documents
    assert [(one.name, one.nodes) for one in left] == [("a.txt", ((LEVEL, 20),))]

    forget(bundle, documents=[A])
    check(bundle)
    assert blocks(bundle) == before
    assert not tree_of(bundle).documents[LEVEL - 1].any()  # no child is left to be routed to
    for level in range(DEPTH):
        assert np.array_equal(tree_of(bundle).centroids[level], tree.centroids[level])
    files = b"".join(path.read_bytes() for path in bundle.rglob("*") if path.is_file())
    assert b"a.txt" not in files
    assert taught[LEVEL, 20][:256] not in files


def test_the_banks_own_blocks_come_back_as_they_were(bundle: Path) -> None:
    before = blocks(bundle)
    document = Taught("a.txt", A, ((2, 3), (2, 5)))
    put(bundle, Lesson(2, {3: values(2, 3, 1), 5: values(2, 5, 1)}, [document]))
    again = Taught("b.txt", B, ((2, 3),))
    put(bundle, Lesson(2, {3: values(2, 3, 2)}, [again]))
    check(bundle)
    taught = blocks(bundle)
    assert {node for node in before if taught[node] != before[node]} == {(2, 3), (2, 5)}

    found = forget(bundle, nodes=[(2, 3)])
    assert found.restored == ((2, 3),)
    assert blocks(bundle) == before | {(2, 5): taught[2, 5]}
    forget(bundle, documents=["a.txt"])
    check(bundle)
    assert blocks(bundle) == before


def test_what_was_not_taught_cannot_be_forgotten(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one_line(capsys, ["forget", bundle, "--documents", "a.txt"], "it was not taught a.txt")
    teach_personally(bundle)
    one_line(capsys, ["forget", bundle, "--nodes", "2:3"], "nothing was taught to 2:3")
    one_line(capsys, ["forget", bundle], "name documents or nodes")
    assert main(["forget", str(bundle), "--documents", "a.txt", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["removed"] == [[LEVEL, 20], [LEVEL, 21]]


@pytest.mark.parametrize(
    "damage", [lambda text: text[:-9], lambda text: text.replace('"schema": 1', '"schema": 2')]
)
def test_a_damaged_record_is_one_line(
    bundle: Path, damage: Callable[[str], str], capsys: pytest.CaptureFixture[str]
) -> None:
    teach_personally(bundle)
    path = next(bundle.glob("memory/teaching-*.json"))
    text = damage(path.read_text())
    path.write_text(text + " " * (path.stat().st_size - len(text)))
    one_line(capsys, ["forget", bundle, "--documents", "a.txt"], path.name, "not a record")


@pytest.fixture
def key(tmp_path: Path) -> Path:
    path = tmp_path / "key"
    path.write_text("0123456789abcdef" * 4 + "\n")
    return path


def test_a_personal_level_goes_to_another_copy(bundle: Path, key: Path, tmp_path: Path) -> None:
    pytest.importorskip("cryptography")
    teach_personally(bundle)
    other, file = make_bundle(tmp_path / "b.bundle"), tmp_path / "mine"
    assert main(["personal", "export", str(bundle), "-o", str(file), "--key-file", str(key)]) == 0
    sealed = file.read_bytes()
    assert b"a.txt" not in sealed
    assert values(LEVEL, 20)[:, :, :1].tobytes()[:64] not in sealed
    assert main(["personal", "attach", str(other), str(file), "--key-file", str(key)]) == 0
    check(other)
    assert blocks(other) == blocks(bundle)
    assert Teaching.read(Bundle.open(other)).documents == Teaching.read(Bundle.open(bundle)).documents
    for mine, theirs in zip(tree_of(bundle).centroids, tree_of(other).centroids, strict=True):
        assert np.array_equal(mine, theirs)


def test_a_wrong_key_anchor_or_file_is_refused(
    bundle: Path, key: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("cryptography")
    file, other = tmp_path / "mine", make_bundle(tmp_path / "b.bundle")
    attach: list[object] = ["personal", "attach", other, file, "--key-file"]
    one_line(capsys, ["personal", "export", bundle, "-o", file, "--key-file", key], "no personal level")
    teach_personally(bundle)
    assert main(["personal", "export", str(bundle), "-o", str(file), "--key-file", str(key)]) == 0
    capsys.readouterr()
    before = blocks(other)

    wrong = tmp_path / "wrong"
    wrong.write_text("f" * 64)
    one_line(capsys, [*attach, wrong], "wrong key")
    wrong.write_text("f" * 63)
    one_line(capsys, [*attach, wrong], "64 hexadecimal digits")
    one_line(capsys, [*attach, tmp_path / "none"], "no such key file")

    sealed = file.read_bytes()
    for position in (len(sealed) - 40, sealed.index(b'"shape"') + 12):  # a block's bytes, and the header's
        damaged = bytearray(sealed)
        damaged[position] ^= 1
        file.write_bytes(damaged)
        one_line(capsys, [*attach, key], str(file))
    file.write_bytes(sealed[:-1])
    one_line(capsys, [*attach, key], "cut short")
    file.write_bytes(b"nothing of the kind")
    one_line(capsys, [*attach, key], "not a personal level")
    file.write_bytes(sealed)

    manifest = json.loads((other / "manifest.json").read_text())
    manifest["anchor"]["rope_theta"] = 7.0
    (other / "manifest.json").write_text(json.dumps(manifest))
    one_line(capsys, [*attach, key], "belongs to another anchor")
    assert blocks(other) == before
