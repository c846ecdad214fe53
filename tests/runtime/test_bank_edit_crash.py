"""SIGKILL at each step of each command leaves the old bank or the new one, and the next command clears the rest."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import kill_points
import pytest
from bank_bundle import block_of, blocks, check, make_bundle, values, write_level
from safetensors.numpy import save_file

from edge_runtime import administration as bank
from edge_runtime.bundle import Bundle

pytestmark = pytest.mark.skipif(not kill_points.supported, reason="needs ptrace as Linux has it")

CHANGES: dict[str, Callable[[Path, Path], object]] = {
    "block": lambda bundle, _: bank.block(bundle, [(1, 1), (2, 9)]),
    "unblock": lambda bundle, _: bank.unblock(bundle, [(1, 3)]),
    "remove": lambda bundle, _: bank.remove(bundle, [(2, 4)]),
    "remove --compact": lambda bundle, _: bank.remove(bundle, [(1, 0), (2, 4)], erase=True),
    "replace by tensors": lambda bundle, files: bank.replace(bundle, [(2, 0)], files / "tensors"),
    "replace by a level": lambda bundle, files: bank.replace(bundle, [(2, 5), (2, 1)], files / "level2"),
    "add-level": lambda bundle, files: bank.add_level(bundle, files / "level3"),
    "compact": lambda bundle, _: bank.compact(bundle),
}


@dataclass(frozen=True)
class Scene:
    """A bundle with an overlay, a removed and a blocked node; `crashed`: the same, left by a compaction cut short."""

    files: Path
    bundles: dict[str, Path]


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    files = tmp_path_factory.mktemp("scene")
    write_level(files / "level2", 2, [1, 5, 6], variant=1)
    write_level(files / "level3", 3, range(0, 64, 8))
    save_file({f"w{i + 1}": values(2, 0, 3)[:, i] for i in range(3)}, files / "tensors")
    whole = make_bundle(files / "whole")
    bank.replace(whole, [(2, 6)], files / "level2")
    bank.remove(whole, [(2, 3)])
    bank.block(whole, [(1, 3)])
    crashed = files / "crashed"
    shutil.copytree(whole, crashed)
    made = kill_points.run(lambda: bank.compact(crashed), crashed).steps
    # After its commit, before it unlinks the first old file: as much is left as there can be.
    shutil.rmtree(crashed)
    shutil.copytree(whole, crashed)
    kill_points.run(lambda: bank.compact(crashed), crashed, commit_of(made) + 2)
    assert (crashed / "memory/journal.json").exists()
    return Scene(files, {"whole": whole, "crashed": crashed})


def picture(directory: Path) -> tuple[object, ...]:
    """All that a bundle's users see of its bank."""
    bundle = Bundle.open(directory)
    return bundle.manifest.revision, bundle.blocked, bundle.removed, blocks(directory)


class Case:
    """One change of one bundle, with what the bank is before and after it."""

    def __init__(self, scene: Scene, start: str, change: str, folder: Path) -> None:
        self._origin, self._files, self._change = scene.bundles[start], scene.files, CHANGES[change]
        self._bundle = folder / "a.bundle"
        self._fresh()
        self.old = picture(self._bundle)
        whole = kill_points.run(self._run, self._bundle)
        assert whole.exit_code == 0
        self.new = picture(self._bundle)
        assert self.new != self.old
        check(self._bundle)
        self.steps = whole.steps

    def _fresh(self) -> None:
        shutil.rmtree(self._bundle, ignore_errors=True)
        shutil.copytree(self._origin, self._bundle)

    def _run(self) -> None:
        self._change(self._bundle, self._files)

    def kill_before(self, step: int) -> None:
        self._fresh()
        killed = kill_points.run(self._run, self._bundle, step)
        assert killed.exit_code is None
        found = picture(self._bundle)
        assert found in (self.old, self.new), self.steps[step]
        assert [finding for _, _, finding in Bundle.open(self._bundle).verify() if finding] == []
        # The next command finds its way, and leaves nothing of the one that was cut short.
        bank.block(self._bundle, [(1, 2)])
        check(self._bundle)
        assert picture(self._bundle)[3] == found[3]


def commit_of(steps: list[str]) -> int:
    """The step that is the commit: the last name given is the manifest's."""
    return max(i for i, step in enumerate(steps) if step.startswith("rename"))


CASES = [("whole", change) for change in CHANGES] + [("crashed", "block"), ("crashed", "remove --compact")]


@pytest.mark.parametrize(("start", "change"), CASES)
def test_a_kill_leaves_the_old_bank_or_the_new_one(
    scene: Scene, tmp_path: Path, start: str, change: str
) -> None:
    """A few points of each command: around its commit, and in the middle of its files."""
    case = Case(scene, start, change, tmp_path)
    commit = commit_of(case.steps)
    for step in {commit // 2, commit, commit + 1}:
        case.kill_before(step)


@pytest.mark.slow
def test_a_kill_at_any_step_leaves_the_old_bank_or_the_new_one(scene: Scene, tmp_path: Path) -> None:
    points = 0
    for start, change in CASES:
        case = Case(scene, start, change, tmp_path)
        for step in range(len(case.steps)):
            case.kill_before(step)
        points += len(case.steps)
        print(f"{start}, {change}: {len(case.steps)} kill points")
    assert points >= 200


def test_the_kill_points_are_those_of_a_change(scene: Scene, tmp_path: Path) -> None:
    """That the tracer sees each write, flush, rename and removal; else the other tests would test nothing."""
    steps = Case(scene, "whole", "block", tmp_path).steps
    durable = ["openat", "pwrite {}.partial", "fsync {}.partial", "rename", "fsync {folder}"]
    written = [
        step.format(name, folder=str(Path(name).parent).rstrip("/"))
        for name in ("/memory/journal.json", "/memory/state-5.json", "/manifest.json")
        for step in durable
    ]
    assert [step for step in steps if not step.startswith("unlink")][:15] == written
    assert steps.count("unlink") >= 2  # the old state file and the journal


def test_a_crashed_replacement_is_whole_after_a_second_attempt(scene: Scene, tmp_path: Path) -> None:
    bundle = tmp_path / "a.bundle"
    shutil.copytree(scene.bundles["whole"], bundle)
    change = CHANGES["replace by a level"]
    kill_points.run(lambda: change(bundle, scene.files), bundle, 8)
    change(bundle, scene.files)
    assert blocks(bundle)[2, 5] == block_of(2, 5, 1)
    check(bundle)
