"""The soak tool on a tiny bank, its driver, and the control group around it."""

import json
import shutil
import subprocess
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest
from bank_files import TINY, tiny_bank

from edge_bench import banks, soak
from edge_bench.banks import Bank
from edge_bench.cgroup import Hierarchy, MemoryGroup, hierarchy
from edge_runtime.errors import StorageError, UnsupportedError

BUDGET = 2 * TINY.path_bytes

V1_MOUNTS = """\
24 1 0:20 / /sys rw - sysfs sysfs rw
30 24 0:25 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu
31 24 0:26 / /sys/fs/cgroup/memory rw shared:7 - cgroup cgroup rw,memory
32 24 0:27 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
"""
V2_MOUNTS = "29 24 0:25 / /sys/fs/cgroup rw shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Bank:
    return tiny_bank(tmp_path_factory.mktemp("bank"))


def tool(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(soak.TOOL), *map(str, arguments)], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("storage", ["direct", "mapped"])
def test_the_tool_fetches_compares_and_keeps_the_budget(bank: Bank, storage: str) -> None:
    done = tool(
        bank.directory, "--budget", BUDGET, "--fetches", 200, "--check-every", 1, "--storage", storage
    )
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    assert record["fetches"] == record["fetches_asked"] == 200
    assert TINY.path_bytes <= record["observed_peak_bytes"] <= record["peak_bytes"] <= BUDGET
    assert record["within_budget"] is True
    assert record["layers_compared"] == 200 * 3 * TINY.layers
    assert record["layers_wrong"] == 0
    assert record["hits"] + record["misses"] == 600
    assert record["evictions"] > 0
    assert record["vm_hwm_bytes"] > 0
    assert record["fetch_ms"]["p50"] <= record["fetch_ms"]["p99"] <= record["fetch_ms"]["max"]
    assert record["error"] is None
    assert all(entry["backend"].startswith(storage) for entry in record["storage"])


def test_the_seed_decides_the_paths(bank: Bank) -> None:
    def hits(seed: int) -> int:
        return int(
            json.loads(tool(bank.directory, "--budget", BUDGET, "--fetches", 300, "--seed", seed).stdout)[
                "hits"
            ]
        )

    assert hits(1) == hits(1)
    assert len({hits(seed) for seed in range(1, 7)}) > 1


def test_a_damaged_block_fails_the_soak(bank: Bank, tmp_path: Path) -> None:
    directory = shutil.copytree(bank.directory, tmp_path / "damaged")
    path = directory / "level1.safetensors"
    data = bytearray(path.read_bytes())
    for row in range(8):
        data[16384 + row * TINY.strides[0] + 10_000] ^= 1
    path.write_bytes(data)
    done = tool(directory, "--budget", BUDGET, "--fetches", 10)
    assert done.returncode == 1
    assert "checksum" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert "level1.safetensors" in json.loads(done.stdout)["error"]


@pytest.mark.parametrize(
    ("arguments", "code", "part"),
    [
        ([], 2, "usage"),
        (["DIR"], 2, "usage"),
        (["DIR", "--budget"], 2, "--budget"),
        (["DIR", "--budget", "1x"], 2, "--budget: bad value '1x'"),
        (["DIR", "--budget", "-1"], 2, "--budget"),
        (["DIR", "--budget", "1", "--storage", "tape"], 2, "--storage"),
        (["DIR", "--budget", "1", "--colour", "red"], 2, "--colour"),
        (["DIR", "DIR", "--budget", "1"], 2, "usage"),
        (["DIR", "--budget", "1", "--sessions", "0"], 2, "usage"),
        (["DIR", "--budget", "1"], 1, "budget"),
        (["DIR/nowhere", "--budget", "1"], 1, "level1.safetensors"),
    ],
)
def test_what_the_tool_refuses_is_one_line(bank: Bank, arguments: list[str], code: int, part: str) -> None:
    done = tool(*(text.replace("DIR", str(bank.directory)) for text in arguments))
    assert done.returncode == code
    assert part in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_the_hierarchy_that_limits_memory() -> None:
    assert hierarchy(V1_MOUNTS, "5:memory:/job\n4:cpu:/x\n0::/y\n") == Hierarchy(
        1, Path("/sys/fs/cgroup/memory/job")
    )
    assert hierarchy(V2_MOUNTS, "0::/user.slice/a:b.scope\n") == Hierarchy(
        2, Path("/sys/fs/cgroup/user.slice/a:b.scope")
    )


def test_the_hierarchy_inside_a_container() -> None:
    # The mount shows the group /docker/abc as its root.
    mounts = V1_MOUNTS.replace("0:26 /", "0:26 /docker/abc")
    assert hierarchy(mounts, "5:memory:/docker/abc/x\n").directory == Path("/sys/fs/cgroup/memory/x")
    assert hierarchy(mounts, "5:memory:/docker/abc\n").directory == Path("/sys/fs/cgroup/memory")
    assert hierarchy(mounts, "5:memory:/elsewhere\n").directory == Path("/sys/fs/cgroup/memory")


def test_no_hierarchy_that_limits_memory() -> None:
    with pytest.raises(UnsupportedError, match="systemd-run"):
        hierarchy("24 1 0:20 / /sys rw - sysfs sysfs rw\n", "0::/\n")


@pytest.mark.parametrize("version", [1, 2])
def test_where_no_group_can_be_made_nothing_stays(tmp_path: Path, version: int) -> None:
    # An ordinary directory: children can be made, and have no file that limits them.
    own = tmp_path / "parent" / "own"
    own.mkdir(parents=True)
    with pytest.raises(UnsupportedError, match="no child group"):
        MemoryGroup(Hierarchy(version, own), 10**8)
    assert list(own.iterdir()) == []
    assert [path.name for path in own.parent.iterdir()] == ["own"]


@pytest.mark.parametrize(
    ("version", "files", "expected"),
    [
        (
            1,
            {
                "memory.limit_in_bytes": "4096\n",
                "memory.max_usage_in_bytes": "4000\n",
                "memory.failcnt": "7\n",
                "memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n",
            },
            {"limit_bytes": 4096, "peak_bytes": 4000, "limit_hits": 7, "oom_kills": 2},
        ),
        (
            2,
            {"memory.max": "max\n", "memory.events": "low 0\nmax 3\noom 1\noom_kill 1\n"},
            {"limit_bytes": None, "peak_bytes": None, "limit_hits": 3, "oom_kills": 1},
        ),
    ],
)
def test_the_figures_of_a_group(
    tmp_path: Path, version: int, files: dict[str, str], expected: dict[str, Any]
) -> None:
    group = object.__new__(MemoryGroup)  # without a control group behind it
    group.hierarchy, group.directory = Hierarchy(version, tmp_path), tmp_path
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert group.figures() == expected


def limited(bank: Bank, monkeypatch: pytest.MonkeyPatch, slack: int) -> dict[str, Any]:
    monkeypatch.setattr(soak, "SLACK", slack)
    try:
        MemoryGroup.below_own(10**8).__exit__()
    except UnsupportedError as error:
        pytest.skip(str(error))
    return soak.soak(bank, BUDGET, 100, 1, "direct")


def test_the_driver_runs_the_tool_in_a_group(bank: Bank, monkeypatch: pytest.MonkeyPatch) -> None:
    record = limited(bank, monkeypatch, 64 * 10**6)
    assert record["exit_code"] == 0
    assert record["group"]["oom_kills"] == 0
    assert record["group"]["limit_bytes"] <= BUDGET + 64 * 10**6
    peak = record["group"]["peak_bytes"]
    assert peak is None or peak <= record["group"]["limit_bytes"]
    text = soak.summary(record)
    assert ": ok" in text
    assert f"{BUDGET:,} bytes" in text


def test_a_tool_that_the_system_kills_is_one_line(bank: Bank, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(soak, "TOOL", Path("/bin/sh"))
    with pytest.raises(StorageError, match="no record"):
        limited(bank, monkeypatch, 64 * 10**6)


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--budget", "much"], "much"),
        (["--budget", "1MB"], "leases at a time need"),
    ],
)
def test_what_the_driver_refuses_before_it_makes_a_bank(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], part: str
) -> None:
    assert soak.main(["-o", str(tmp_path), *arguments]) == 1
    error = capsys.readouterr().err.strip()
    assert part in error
    assert len(error.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", [["--fetches", "0"], ["--fetches", "x"], ["--seed", "-1"]])
def test_bad_usage_is_one_line(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        soak.main(arguments)
    assert raised.value.code == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_a_disk_that_is_too_small_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(banks.shutil, "disk_usage", lambda _: usage(10**10, 7 * 10**9, 3 * 10**9))
    assert soak.main(["-o", str(tmp_path)]) == 1
    error = capsys.readouterr().err.strip()
    assert "needs 4.9 GB and the disk has 3.0 GB free" in error
    assert list((tmp_path / "bank").iterdir()) == []
