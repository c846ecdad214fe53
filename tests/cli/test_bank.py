"""`edge-runtime bank`: what it prints, and that each bad input is one line."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from bank_bundle import PAGE, blocks, check, make_bundle, write_level

from edge_runtime.bundle import Bundle
from edge_runtime.cli.main import main

COMMAND = [sys.executable, "-m", "edge_runtime.cli.main", "bank"]


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return make_bundle(tmp_path / "a.bundle")


@pytest.fixture
def level(tmp_path: Path) -> Path:
    return write_level(tmp_path / "level2", 2, [3, 5], variant=1)


def verifies(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["verify", str(bundle)]) == 0
    capsys.readouterr()
    check(bundle)


def one_line(capsys: pytest.CaptureFixture[str], arguments: list[object], *parts: str) -> None:
    assert main(["bank", *map(str, arguments)]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("edge-runtime: ")
    assert err.count("\n") == 1, err
    assert "internal error" not in err
    for part in parts:
        assert part in err


def test_each_action_says_what_it_did_and_leaves_a_bundle_that_verifies(
    bundle: Path, level: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    deeper = write_level(tmp_path / "level3", 3, [7], dtype="f32")
    for revision, arguments in enumerate(
        (
            ["block", bundle, "1:1", "2:9"],
            ["unblock", bundle, "1:1"],
            ["remove", bundle, "2:3"],
            ["replace", bundle, "2:3", "2:5", level],
            ["add-level", bundle, deeper],
            ["remove", bundle, "2:5", "--compact"],
            ["replace", bundle, "2:5", level],
            ["compact", bundle],
        ),
        start=2,
    ):
        assert main(["bank", *map(str, arguments)]) == 0
        out = capsys.readouterr().out
        assert f"{bundle}: revision {revision}" in out
        assert "open sessions keep theirs" in out
        verifies(bundle, capsys)
    assert main(["bank", "compact", str(bundle)]) == 0
    out = capsys.readouterr().out
    assert out.splitlines() == [
        "nothing to compact: no overlays, and no removed block in the files",
        f"{bundle}: nothing to change, revision 9 stays",
    ]


def test_json_is_one_object(bundle: Path, level: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def record(*arguments: object) -> dict[str, object]:
        assert main(["bank", *map(str, arguments), "--json"]) == 0
        out, err = capsys.readouterr()
        assert err == ""
        found: dict[str, object] = json.loads(out)
        return found

    assert record("block", bundle, "1:1") == {
        "bundle": str(bundle),
        "action": "block",
        "changed": True,
        "previous_revision": 1,
        "revision": 2,
        "bytes_written": 0,
        "bytes_freed": 0,
        "notes": [],
    }
    again = record("block", bundle, "1:1")
    assert (again["changed"], again["revision"], again["notes"]) == (False, 2, ["blocked already: 1:1"])
    size = (bundle / "memory/level2.safetensors").stat().st_size
    replaced = record("replace", bundle, "2:3", level)
    assert replaced["bytes_written"] == size - 14 * (PAGE + 16)
    compacted = record("compact", bundle)
    assert (compacted["bytes_written"], compacted["bytes_freed"]) == (size, 2 * size - 14 * (PAGE + 16))
    record("remove", bundle, "2:4")
    status = record("status", bundle)
    assert (status["revision"], status["blocked"], status["removed"]) == (5, [[1, 1]], [[2, 4]])
    assert status["levels"][2] == {  # type: ignore[index]
        "level": 2,
        "rows": 2,
        "dtype": "i8",
        "nodes": 16,
        "blocks": 14,
        "files": ["memory/level2-4.safetensors"],
        "bytes": size,
        "reclaimable_bytes": PAGE,
    }


def test_status_shows_what_is_blocked_and_removed(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["bank", "block", str(bundle), "1:1"])
    main(["bank", "remove", str(bundle), "2:4"])
    capsys.readouterr()
    assert main(["bank", "status", str(bundle)]) == 0
    out = capsys.readouterr().out
    assert f"{bundle}, revision 3" in out
    assert "blocked: 1:1\n" in out
    assert "removed: 2:4\n" in out


def test_bad_input_is_one_line(
    bundle: Path, level: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one_line(capsys, ["block", bundle, "1:4"], "no node 1:4", "0..3")
    one_line(capsys, ["remove", bundle, "2:15"], "2:15 has no block")
    one_line(capsys, ["replace", bundle, "1:2", level], "level2", "its level is 2, the bank's 1")
    one_line(capsys, ["replace", bundle, "2:3", tmp_path / "none"], "none: no such file")
    one_line(capsys, ["add-level", bundle, level], "the bundle has a level 2")
    one_line(capsys, ["compact", tmp_path / "none"], "none: no such directory")
    one_line(capsys, ["status", tmp_path], "not a bundle")
    assert Bundle.open(bundle).manifest.revision == 1


@pytest.mark.parametrize(
    "arguments", [[], ["burn"], ["block"], ["block", "b"], ["block", "b", "1"], ["replace", "b", "1:2"]]
)
def test_bad_usage_is_one_line(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        main(["bank", *arguments])
    assert raised.value.code == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_help_says_that_remove_hides_and_compact_erases(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["bank", "remove", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "This hides the blocks at once; their bytes stay in the level file until `compact`" in text


def in_child(arguments: list[object], before: Callable[[], None]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *map(str, arguments)], capture_output=True, text=True, check=False, preexec_fn=before
    )


def test_a_limit_on_the_size_of_files_is_one_line_and_leaves_the_old_bundle(bundle: Path) -> None:
    assert main(["bank", "remove", str(bundle), "2:3"]) == 0
    before = {path: path.read_bytes() for path in bundle.rglob("*") if path.is_file()}

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (5 * PAGE, 5 * PAGE))

    done = in_child(["compact", bundle], limit)
    assert done.returncode == 1
    assert done.stderr == (
        f"edge-runtime: {bundle}/memory/level2-3.safetensors.partial: writing failed: File too large\n"
    )
    assert {path: path.read_bytes() for path in bundle.rglob("*") if path.is_file()} == before


def as_nobody(arguments: list[object]) -> tuple[int, str]:
    """Exit code and standard error of the command, run by whom modes stop: they do not stop root."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 70
        try:
            if os.geteuid() == 0:
                os.setresgid(65534, 65534, 65534)
                os.setresuid(65534, 65534, 65534)
            sys.stderr = os.fdopen(writer, "w")
            code = main(["bank", *map(str, arguments)])
            sys.stderr.flush()
        finally:
            os._exit(code)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        err = pipe.read()
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), err


def test_a_bundle_that_may_not_be_written_is_one_line() -> None:
    with tempfile.TemporaryDirectory() as folder:  # pytest's own are the owner's alone
        Path(folder).chmod(0o755)
        bundle = make_bundle(Path(folder) / "a.bundle")
        for closed in (bundle, bundle / "memory"):
            closed.chmod(0o555)
        assert as_nobody(["block", bundle, "1:1"]) == (
            1,
            f"edge-runtime: {bundle}/memory/journal.json.partial: cannot be created: Permission denied\n",
        )
        assert check(bundle).manifest.revision == 1
        for closed in (bundle, bundle / "memory"):
            closed.chmod(0o755)


def test_ctrl_c_is_one_line_and_leaves_the_old_bundle(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "a.bundle")
    # Enough blocks for an interrupt to arrive among them.
    level = write_level(tmp_path / "level3", 3, range(64), dtype="i8")
    assert main(["bank", "add-level", str(bundle), str(level)]) == 0
    assert main(["bank", "remove", str(bundle), "3:1"]) == 0
    before = blocks(bundle)
    process = subprocess.Popen(
        [sys.executable, "-c", SLOWED, "bank", "compact", str(bundle)], stderr=subprocess.PIPE, text=True
    )
    partial = bundle / "memory/level3-4.safetensors.partial"
    while not partial.exists() and process.poll() is None:
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate()
    assert process.returncode == 130, err
    assert err == "edge-runtime: interrupted\n"
    assert blocks(bundle) == before
    assert check(bundle).manifest.revision == 3


# The command, each of its reports late: so that an interrupt finds it in the middle of its work.
SLOWED = """
import sys, time
from edge_runtime.administration import edit
from edge_runtime.cli.main import main
commit = edit.BundleEdit.commit
def slow(self, state, new_files, report):
    def late(done, total):
        time.sleep(0.05)
        report(done, total)
    return commit(self, state, new_files, late)
edit.BundleEdit.commit = slow
sys.exit(main())
"""
