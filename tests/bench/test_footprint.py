"""The search for the smallest limit on machines that are made up, and the real thing in a control group."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edge_bench import answer_limit
from edge_bench.cgroup import MemoryGroup
from edge_bench.footprint.search import MIB, search
from edge_bench.limited import Load, Trial, attempt
from edge_bench.remote import Remote, WorkerEndedError
from edge_runtime.cli.main import main
from edge_runtime.errors import EdgeRuntimeError, UnsupportedError


def machine(killed_below: int, slow_below: int, hiccups: int = 0) -> tuple[list[int | None], object]:
    """An attempt that is killed below one limit and slow below another; the first `hiccups` limited ones are slow."""
    asked: list[int | None] = []

    def attempt(limit: int | None) -> Trial:
        asked.append(limit)
        size = 2**40 if limit is None else limit
        speed = 0.0 if size < killed_below else 10.0 if size < slow_below else 100.0
        if limit is not None and sum(one is not None for one in asked) <= hiccups:
            speed = min(speed, 10.0)
        return Trial(limit, speed, "ok" if speed else "killed", 200 * MIB, 0, 150 * MIB)

    return asked, attempt


@pytest.mark.parametrize(("killed", "slow"), [(90, 120), (120, 0), (3, 4)])
def test_it_finds_the_limit_to_one_in_a_hundred(killed: int, slow: int) -> None:
    _, attempt = machine(killed * MIB, slow * MIB)
    found = search(attempt, 0.5, lambda text: None)  # type: ignore[arg-type]
    right = max(killed, slow) * MIB
    assert found.smallest.limit_bytes is not None
    assert right <= found.smallest.limit_bytes <= right + max(MIB, right // 50)
    limits = [trial.limit_bytes or 0 for trial in found.trials]
    assert limits == sorted(limits)
    assert limits[-1] >= 2 * right


def test_a_slow_moment_is_tried_again() -> None:
    asked, attempt = machine(90 * MIB, 0, hiccups=1)
    assert search(attempt, 0.5, lambda text: None).smallest.limit_bytes < 95 * MIB  # type: ignore[arg-type, operator]
    assert asked[2] == asked[3] == 200 * MIB


def test_a_bundle_that_never_answers_is_one_error() -> None:
    with pytest.raises(EdgeRuntimeError, match="without a limit either: no file"):
        search(lambda limit: Trial(limit, 0.0, "no file", 1, 0, None), 0.5, lambda text: None)


@pytest.fixture
def _groups() -> None:
    try:
        MemoryGroup.below_own(None).__exit__()
    except UnsupportedError as error:
        pytest.skip(str(error))


def load(bundle: Path) -> Load:
    options = {"engine": "executorch", "budget": None, "storage": "auto", "threads": 1}
    return Load(bundle, options, ("Hafnium",), 2, "fetched", 0.01)


@pytest.mark.usefixtures("_groups")
def test_a_limit_lets_through_or_kills(tiny_bundle: Path) -> None:
    free = attempt(load(tiny_bundle), None)
    assert free.outcome == "ok"
    assert free.requests_per_s > 0
    assert free.peak_bytes is None or free.peak_bytes > 2**24
    tight = attempt(load(tiny_bundle), 2**24)
    assert (tight.requests_per_s, tight.outcome) == (0.0, "killed for want of memory")


@pytest.mark.usefixtures("_groups")
def test_the_verb_writes_a_record_and_a_picture(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from edge_bench import limited

    _, made_up = machine(90 * MIB, 100 * MIB)
    monkeypatch.setattr(limited, "attempt", lambda load, limit, patience: made_up(limit))  # type: ignore[operator]
    assert main(["footprint", str(tiny_bundle), "-o", str(tmp_path)]) == 0
    record = json.loads((tmp_path / "footprint.json").read_text())
    assert 100 * MIB <= record["smallest_limit_bytes"] <= 101 * MIB
    assert (tmp_path / "footprint.png").read_bytes().startswith(b"\x89PNG")
    assert "killed" in capsys.readouterr().out


def test_without_control_groups_it_is_one_line(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(limit: int | None) -> MemoryGroup:
        raise UnsupportedError(
            "no control group hierarchy that limits memory is mounted here: run it as root"
        )

    monkeypatch.setattr(MemoryGroup, "below_own", refuse)
    assert main(["footprint", str(tiny_bundle), "-o", str(tmp_path)]) == 1
    error = capsys.readouterr().err.strip()
    assert "no control group" in error
    assert len(error.splitlines()) == 1


def test_a_fraction_is_checked(tiny_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["footprint", str(tiny_bundle), "--fraction", "1.5"]) == 1
    assert "--fraction 1.5" in capsys.readouterr().err


def test_what_would_fail_at_the_end_is_refused_at_the_start(
    tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_bench.footprint.verb.measure", lambda *_: pytest.fail("it measures"))
    file = tmp_path / "file"
    file.write_text("mine")
    assert main(["footprint", str(tiny_bundle), "-o", str(file)]) == 1
    assert capsys.readouterr().err == f"edge-runtime: {file}: file exists\n"
    assert main(["footprint", str(tiny_bundle), "--seconds", "nan"]) == 1
    assert "--seconds nan" in capsys.readouterr().err


@pytest.mark.usefixtures("_groups")
def test_answers_fit_in_constant_anchor_fetched_and_slack(
    tiny_bundle: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = [str(tiny_bundle), "--json"]
    monkeypatch.setattr(
        answer_limit, "SLACK", 300 * 10**6
    )  # of a tiny bundle, the router's MiniLM is the most
    assert answer_limit.main(arguments) == 0
    record = json.loads(capsys.readouterr().out)
    parts = (record["constant"]["charged_to_group_bytes"], record["anchor_bytes"], record["fetched_bytes"])
    assert record["trial"]["limit_bytes"] == sum(parts) + record["slack_bytes"]
    monkeypatch.setattr(answer_limit, "SLACK", -record["constant"]["charged_to_group_bytes"] + 2**23)
    assert answer_limit.main(arguments[:1]) == 1
    assert "FAILED" in capsys.readouterr().out


def test_a_worker_says_what_went_wrong(tmp_path: Path) -> None:
    with Remote() as worker:
        with pytest.raises(EdgeRuntimeError, match="no bundle is open"):
            worker.ask("speed", tokens=1, decode=False, memory="none")
        with pytest.raises(EdgeRuntimeError, match="manifest"):
            worker.ask("open", bundle=str(tmp_path))
        worker._process.kill()
        worker._process.wait()
        with pytest.raises(WorkerEndedError, match="ended with -9"):
            worker.ask("resident")
