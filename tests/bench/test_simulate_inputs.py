"""What the simulator is given: profiles, placements, traces; and what its verb prints."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edge_bench.simulate import profiles, search, traces
from edge_bench.simulate.cli import VERB
from edge_runtime.cli.main import main
from edge_runtime.errors import BadFormatError, InvalidArgumentError, NotFoundError

GOOD = (profiles.DIRECTORY / "ufs-4.0.toml").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", profiles.names())
def test_every_figure_of_every_profile_names_its_source(name: str) -> None:
    profile = profiles.find(name)
    assert all(len(text) >= len("assumption") for text in profile.sources.values())
    assert profile.native()[2] == [(size, round(seconds * 1e9)) for size, seconds in profile.latency]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("lanes = 4", "lanes = 0", "lanes must be a number above 0"),
        ("lanes = 4", "lanes = 1.5", "lanes must be a whole number"),
        ("lanes = 4", "", "missing: lanes"),
        ("lanes = 4", "lanes = 4\nspeed = 1", "unknown: speed"),
        ("[[16384, 110], [589824, 324]]", "[[2, 1], [1, 1]]", "ascending"),
        ("[[16384, 110], [589824, 324]]", "7", "latency_us must be a list"),
        ('lanes = "measured', 'paths = "measured', "must say of each figure"),
        ("[sources]", "[sources", "not TOML"),
    ],
)
def test_a_profile_that_is_wrong_is_refused(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = tmp_path / "mine.toml"
    assert old in GOOD
    path.write_text(GOOD.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(BadFormatError, match=message):
        profiles.read(path)


def test_placements() -> None:
    placed = profiles.parse_placement("1=ram,2=ufs-4.0,3=sd-card", [1, 2, 3])
    assert placed[1] is None
    assert [p.key for p in (placed[2], placed[3]) if p] == ["ufs-4.0", "sd-card"]
    for text in ("ram", "1=ufs-4.0", "1=ram,2=ram,3=ram", "1=ram,1=ram", "4=ram", "x=ram"):
        with pytest.raises(InvalidArgumentError):
            profiles.parse_placement(text, [1, 2, 3])
    with pytest.raises(NotFoundError, match="no such profile"):
        profiles.find("floppy")


def test_a_recorded_trace_is_what_route_and_run_print(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    lines = [
        {"router": "static", "path": [1, 17, 272], "margins": []},
        {"path": [1, 17], "user": 7, "pause_ms": 5},
    ]
    path.write_text("\n".join(map(json.dumps, lines)) + "\n", encoding="utf-8")
    trace = traces.read(path, 16, 3)
    assert trace.visits == (traces.Visit((1, 17, 272)), traces.Visit((1, 17), 7, 5.0))


@pytest.mark.parametrize(
    "line",
    ["{", "[]", '{"path": [16]}', '{"path": [1, 3]}', '{"path": []}', '{"path": [0, 0, 0, 0]}',
     '{"path": [0], "user": -1}', '{"path": [0], "pause_ms": "x"}'],
)  # fmt: skip
def test_a_line_that_is_no_visit_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "trace.jsonl"
    path.write_text(f'{{"path": [1]}}\n{line}\n', encoding="utf-8")
    with pytest.raises(BadFormatError, match=r"trace\.jsonl, line 2: "):
        traces.read(path, 16, 3)


def test_generated_traces_walk_down_the_tree() -> None:
    for kind in traces.KINDS:
        trace = traces.generate(kind, 50, 1, 16, 4)
        assert all(
            node // 16 == above
            for visit in trace.visits
            for above, node in zip(visit.path, visit.path[1:], strict=False)
        )
        assert trace == traces.generate(kind, 50, 1, 16, 4)
        assert trace != traces.generate(kind, 50, 2, 16, 4)


def test_the_front_is_what_nothing_beats() -> None:
    rows = [
        {"fetched_parameters": size, "p95_ms": ms, "pareto": False}
        for size, ms in ((10, 5.0), (10, 4.0), (20, 4.0), (5, 1.0), (30, 9.0), (30, None))
    ]
    search.mark_front(rows)
    assert [(r["fetched_parameters"], r["p95_ms"]) for r in rows if r["pareto"]] == [
        (20, 4.0),
        (5, 1.0),
        (30, 9.0),
    ]


def test_the_verb_writes_results_and_a_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert VERB.name == "simulate"
    common = ["simulate", "--json", "--prompts", "40", "-o", str(tmp_path)]
    assert (
        main(
            [
                *common,
                "--place",
                "1=ram,2=ufs-4.0,3=sd-card",
                "--budget",
                "300MB",
                "--target-ms",
                "20",
                "--policies",
            ]
        )
        == 0
    )
    record = json.loads(capsys.readouterr().out)
    assert record["budget"]["smallest_bytes"] <= record["budget"]["curve"][-1]["budget_bytes"]
    assert len(record["policies"]) == 12
    assert record["day"]["wear"]["sd-card"]["written_bytes"] > 0
    assert record["hit_rate"]["1"] == 1
    assert record == json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert {"seed", "trace", "placement"} <= set(record["configuration"])
    assert (tmp_path / "answers.png").stat().st_size > 10_000


def test_a_search_keeps_to_its_limits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        main(["simulate", "--search", "--json", "--prompts", "8", "--budget", "32MB", "--flash", "6GB"]) == 0
    )
    record = json.loads(capsys.readouterr().out)
    best = record["best"]
    assert best["feasible"]
    assert best["needed_dram_bytes"] <= 32e6
    assert best["flash_bytes"] <= 6e9
    assert best["p95_ms"] <= record["limits"]["deadline_ms"]
    assert all(
        row["fetched_parameters"] <= best["fetched_parameters"]
        for row in record["candidates"]
        if row["feasible"]
    )


def test_refusals_are_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", "--budget", "1MB"]) == 1
    assert capsys.readouterr().err.count("\n") == 1
    assert main(["simulate", "--trace", "nowhere.jsonl"]) == 1
    assert "no such trace" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--figure5", "--place", "sd-card"], "--place: --figure5 does not read it"),
        (["--search", "--target-ms", "5"], "--target-ms: --search does not read it"),
        (["--validate", "--budget", "1MB"], "--budget: --validate does not read it"),
        (["--flash", "1GB"], "--flash: a run without --search does not read it"),
        (["--prefill-ms", "nan"], "--prefill-ms nan: it must be finite"),
        (["--search", "--deadline-ms", "inf"], "--deadline-ms inf: it must be finite"),
        (["--target-ms", "0"], "--target-ms 0.0: it must be above 0"),
    ],
)
def test_options_that_nothing_would_read_are_refused(
    capsys: pytest.CaptureFixture[str], arguments: list[str], part: str
) -> None:
    assert main(["simulate", *arguments]) == 1
    assert capsys.readouterr().err == f"edge-runtime: {part}\n"
