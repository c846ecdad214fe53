"""`edge-runtime bench` on a small bundle: every format, the trace, and what it refuses."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from edge_bench.bench_verb.paging import levels, spread
from edge_bench.bench_verb.prompts import read_prompts
from edge_bench.bench_verb.speeds import Test as Speed
from edge_bench.bench_verb.speeds import row
from edge_bench.bench_verb.tables import as_csv, as_jsonl, markdown
from edge_runtime.cli.main import main
from edge_runtime.errors import BadFormatError, InvalidArgumentError


@pytest.fixture(scope="module")
def measured(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a record and a trace."""
    folder = tmp_path_factory.mktemp("bench")
    prompts = folder / "prompts.txt"
    prompts.write_text("The atomic number of hafnium is\n\nLisbon is a city\n")
    options = ["-p", "8,32", "-n", "4", "-r", "2", "--requests", "5", "--answer-tokens", "3"]
    files = ["--prompts", prompts, "--save", folder / "bench.json", "--trace", folder / "trace.csv"]
    assert main(["bench", str(tiny_bundle), *options, *map(str, files)]) == 0
    return folder


@pytest.fixture
def record(measured: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((measured / "bench.json").read_text())
    return found


def test_a_row_for_every_test_with_memory_off_and_fetched(record: dict[str, Any]) -> None:
    rows = {(row["test"], row["memory"]): row for row in record["tests"]}
    assert rows.keys() == {(t, m) for t in ("pp8", "pp32", "tg4") for m in ("none", "fetched")}
    assert all(len(row["samples_ns"]) == row["repetitions"] == 2 for row in rows.values())
    assert rows["pp8", "none"]["over_none"] is None
    assert rows["pp8", "fetched"]["over_none"] > 0
    assert (rows["tg4", "none"]["n_prompt"], rows["tg4", "none"]["n_gen"]) == (0, 4)
    assert {"machine", "versions", "revision", "command", "load_average", "seconds"} <= record.keys()


def test_requests_are_cold_then_warm_then_a_session(measured: Path, record: dict[str, Any]) -> None:
    with (measured / "trace.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["phase"] for row in rows] == ["none", "cold", "warm"] * 2 + ["session"] * 5
    cold, warm = rows[1], rows[2]
    assert cold["path"] == warm["path"] != ""
    assert int(cold["bytes_read"]) > 0 == int(warm["bytes_read"])
    assert (cold["level1_misses"], warm["level1_hits"]) == ("1", "1")
    requests = next(iter(record["engines"].values()))["requests"]
    assert sum(level["hits"] + level["misses"] for level in requests["levels"].values()) == 10
    assert requests["ttft_ms"]["cold"]["p50"] > 0
    assert requests["fetch_alone_ms"]["p50"] > 0


def test_memory_adds_up(record: dict[str, Any]) -> None:
    engine = next(iter(record["engines"].values()))
    for look in (engine["opened"]["before"], engine["memory"]["steady"], engine["memory"]["peak"]):
        parts = (look["anonymous_bytes"], look["dirty_bytes"], look["clean_bytes"])
        assert sum(parts) == look["resident_bytes"]
    assert engine["memory"]["peak"]["charged_bytes"] >= engine["memory"]["steady"]["charged_bytes"]
    assert engine["memory"]["steady"]["anonymous_bytes"] > engine["opened"]["before"]["anonymous_bytes"]


def test_every_format_has_every_row(record: dict[str, Any]) -> None:
    assert len(list(csv.DictReader(as_csv(record).splitlines()))) == len(record["tests"])
    lines = [json.loads(line) for line in as_jsonl(record).splitlines()]
    assert [line["test"] for line in lines] == [row["test"] for row in record["tests"]]
    text = markdown(record)
    assert text.count(" ± ") == len(record["tests"])
    assert record["command"] in text


def test_a_row_has_the_mean_the_deviation_and_the_ratio_of_pairs() -> None:
    found = row("native", Speed("tg", 10), "fetched", [1.0, 0.5, 1.0], [0.5, 0.25, 1.0])
    assert found["avg_ts"] == pytest.approx(40 / 3, abs=1e-3)
    assert found["stddev_ts"] == pytest.approx(5.774, abs=1e-3)
    assert found["over_none"] == 0.5
    assert row("native", Speed("pp", 10), "none", [2.0], None)["stddev_ts"] == 0


def test_hit_rates_are_of_the_blocks_asked_for() -> None:
    one = {
        "levels": {
            "0": dict.fromkeys(("hits", "misses", "bytes"), 0),
            "1": {"hits": 1, "misses": 0, "bytes": 0},
        }
    }
    other = {
        "levels": {
            "0": dict.fromkeys(("hits", "misses", "bytes"), 0),
            "1": {"hits": 0, "misses": 1, "bytes": 8},
        }
    }
    expected = {"hits": 1, "misses": 1, "bytes": 8, "hit_rate": 0.5, "bytes_a_request": 4}
    assert levels([one, other]) == {"1": expected}
    assert spread([None]) is None
    assert spread([1.0, None, 3.0]) == {"p50": 2.0, "p95": 2.9, "max": 3.0}


def test_prompts_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text('{"prompt": "one"}\n{"prompt": "two"}\n')
    assert read_prompts(path) == ["one", "two"]
    path.write_text('{"question": "one"}\n')
    with pytest.raises(InvalidArgumentError, match="line 1"):
        read_prompts(path)
    path.write_text("\n")
    with pytest.raises(InvalidArgumentError, match="no prompt"):
        read_prompts(path)
    path.write_bytes(b"\xff")
    with pytest.raises(BadFormatError, match="not UTF-8"):
        read_prompts(path)


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--engine", "abacus"], "no program for 'abacus'"),
        (["-p", "9999"], "pp9999: the context holds 96 tokens"),
        (["-p", "0", "-n", "0"], "nothing to measure"),
        (["--prompts", "nowhere.txt"], "nowhere.txt"),
        (["--budget", "1B"], "budget"),
        (["--save", "nowhere/record.json"], "nowhere is not a folder"),
        (["--trace", "nowhere/trace.csv"], "nowhere is not a folder"),
        (["--save", "."], "it is a folder"),
    ],
)
def test_what_it_refuses_is_one_line(
    tiny_bundle: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], part: str
) -> None:
    assert main(["bench", str(tiny_bundle), "--engine", "executorch", *arguments]) == 1
    lines = capsys.readouterr().err.strip().splitlines()
    assert part in lines[-1]
    assert not any("Traceback" in line for line in lines)


@pytest.mark.parametrize("arguments", [["-p", "many"], ["-r", "0"], ["-o", "xml"]])
def test_bad_usage_is_one_line(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        main(["bench", "BUNDLE", *arguments])
    assert raised.value.code == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
