"""`edge-runtime route` on the tiny bundle."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from edge_runtime.cli.main import main

PROMPT = "Hafnium. Hafnium is a transition metal in period 6 of the periodic table."


def record(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, object]:
    assert main(["route", *arguments, "--json"]) == 0
    found: dict[str, object] = json.loads(capsys.readouterr().out)
    return found


def test_the_path_of_a_prompt(tiny_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = record(capsys, str(tiny_bundle), PROMPT, "--top-paths", "3")
    assert found["router"] == "minilm"
    paths = found["paths"]
    assert isinstance(paths, list)
    assert paths[0] == {"path": found["path"], "conceded": 0}
    assert len(paths) == 3
    assert paths[1]["conceded"] <= paths[2]["conceded"]
    assert main(["route", str(tiny_bundle), PROMPT, "--router", "static"]) == 0
    out = capsys.readouterr().out
    assert "margins" in out
    assert "(static)" in out


def test_routers_are_compared_with_the_reference(
    tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prompts = tmp_path / "prompts.txt"
    # Bytes that are no UTF-8, and blank lines, which are no prompts.
    prompts.write_bytes(
        f"{PROMPT}\n\nLisbon. Lisbon is a city on the coast.\n".encode() + b"caf\xe9 \xff\n \n"
    )
    found = record(capsys, str(tiny_bundle), "--compare", str(prompts))
    assert found["prompts"] == 3
    assert found["reference"] == "minilm"
    routers = {router["name"]: router for router in found["routers"]}  # type: ignore[attr-defined]
    assert routers["minilm"]["agreement"] == [1, 1]
    assert routers["minilm"]["default"] is True
    static = routers["static"]
    assert all(0 <= share <= 1 for share in static["agreement"])
    assert static["agreement"][0] >= static["agreement"][1]
    assert static["bytes"] == (tiny_bundle / "router/static.safetensors").stat().st_size
    assert 0 < static["us_median"] <= static["us_p95"]
    # The tables against a transformer of 22 million parameters.
    assert 100 * static["bytes"] < routers["minilm"]["bytes"]
    assert main(["route", str(tiny_bundle), "--compare", str(prompts)]) == 0
    out = capsys.readouterr().out
    assert "static" in out
    assert "level 2" in out


def test_a_bundle_without_a_program_has_no_reference(
    tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "copy.bundle"
    shutil.copytree(tiny_bundle, copy)
    manifest = json.loads((copy / "manifest.json").read_text())
    router = manifest["router"]
    router["embedders"] = [spec for spec in router["embedders"] if spec["name"] == "static"]
    router["default"] = "static"
    (copy / "manifest.json").write_text(json.dumps(manifest))
    prompts = tmp_path / "prompts.txt"
    prompts.write_text(PROMPT)
    found = record(capsys, str(copy), "--compare", str(prompts))
    assert found["reference"] is None
    assert [router["agreement"] for router in found["routers"]] == [None]  # type: ignore[attr-defined]
    assert record(capsys, str(copy), PROMPT)["router"] == "static"


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ([], "PROMPT or --compare"),
        (["a", "--compare", "b"], "PROMPT or --compare"),
        (["--compare", "/nonexistent/prompts.txt"], "no such file"),
        (["a", "--router", "other"], "'other'"),
        (["a", "--top-paths", "0"], "--top-paths 0"),
        (["a", "--top-paths", "-1"], "--top-paths -1"),
        (["--compare", "b", "--router", "static"], "--compare takes every router"),
        (["--compare", "b", "--top-paths", "1"], "--compare takes every router"),
        (["a", "--threads", "0"], "threads"),
    ],
)
def test_bad_arguments_are_one_line(
    tiny_bundle: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], part: str
) -> None:
    assert main(["route", str(tiny_bundle), *arguments]) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert part in line
    assert "internal error" not in line


def test_a_file_without_prompts(
    tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "prompts.txt").write_text("\n \n")
    assert main(["route", str(tiny_bundle), "--compare", str(tmp_path / "prompts.txt")]) == 1
    assert "it has no prompts" in capsys.readouterr().err
