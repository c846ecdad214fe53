"""edge_run, the C runner, against Python's session over the same bundle."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from edge_export.bundle import export_bundle
from edge_export.source import ExportConfig, Source
from edge_runtime.runtime import Runtime

ROOT = Path(__file__).parents[2]
BUILT = ROOT / "build/tests/edge_runtime/cpp/runner/edge_run"
PROMPTS = [
    "Hafnium. Hafnium is a transition metal in period 6 of the periodic table. Its atomic number is",
    "Lisbon. Lisbon is a city on the coast. It was",
    "Ünï¢ödé, 日本語 and 👩‍👩‍👧",
]
OPTIONS: list[dict[str, Any]] = [
    {},
    {"memory": "generic"},
    {"memory": "none", "max_tokens": 20},
    {"temperature": 0.9, "top_k": 20, "seed": 4},
    {
        "temperature": 1.2,
        "top_p": 0.8,
        "min_p": 0.05,
        "repetition_penalty": 1.3,
        "seed": 2**40,
        "max_tokens": 20,
    },
    {"stop": ["e", "a"]},
    {"blocked": [(1, 0)]},
]

if not BUILT.is_file():
    pytest.skip("edge_run is not built: make test-cpp builds it", allow_module_level=True)


@pytest.fixture(scope="module")
def bundle(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("edge_run") / "f32.bundle"
    config = ExportConfig("f32", "f32", 16, None, ("static",), "f32", (("native", "paged"),))
    export_bundle(Source.open(tiny_checkpoint), out, config, lambda step: None)
    return out


def edge_run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([BUILT, *arguments], capture_output=True, text=True, check=False, timeout=60)


def flags(options: dict[str, Any]) -> list[str]:
    found = []
    for name, value in options.items():
        if name == "blocked":
            found += [part for level, node in value for part in ("--block", f"{level}:{node}")]
        elif name == "stop":
            found += [part for text in value for part in ("--stop", text)]
        else:
            found += [f"--{name.replace('_', '-')}", str(value)]
    return found


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_the_answers_are_those_of_python(bundle: Path, options: dict[str, Any]) -> None:
    runtime = Runtime.open(bundle, engine="native", router="static")
    with runtime.session() as session:
        for prompt in PROMPTS:
            text = "".join(session.generate(prompt, **options))
            done = edge_run(str(bundle), prompt, "--router", "static", "--json", *flags(options))
            assert done.returncode == 0, done.stderr
            record = json.loads(done.stdout)
            assert record["text"] == text
            for key in (
                "path",
                "prompt_tokens",
                "generated_tokens",
                "bank_bytes",
                "budget_bytes",
                "kv_bytes",
            ):
                assert record[key] == getattr(session.stats, key), key


def test_plain_output_is_the_text_and_stats_are_apart(bundle: Path) -> None:
    record = json.loads(edge_run(str(bundle), PROMPTS[0], "--json").stdout)
    plain = edge_run(str(bundle), PROMPTS[0], "--stats")
    assert plain.stdout == record["text"] + "\n"
    assert "first token" in plain.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "BUNDLE"),
        (["{bundle}", "x", "--top-k", "many"], "--top-k"),
        (["{bundle}", "x", "--no-such", "1"], "--no-such"),
        (["{bundle}", "x", "--top-p", "0"], "top_p"),
        (["{bundle}", ""], "empty"),
        (["{bundle}", "x", "--budget", "1KB"], "budget"),
        (["{bundle}", "x " * 500], "shorten"),
        (["/nonexistent", "x"], "/nonexistent"),
    ],
)
def test_what_is_wrong_is_one_line(bundle: Path, arguments: list[str], says: str) -> None:
    done = edge_run(*(argument.replace("{bundle}", str(bundle)) for argument in arguments))
    assert done.returncode in (1, 2)
    assert done.stderr.startswith("edge_run: ")
    assert done.stderr.count("\n") == 1
    assert says in done.stderr


@pytest.mark.parametrize("name", ["tokenizer.json", "anchor.native.safetensors", "memory/state-1.json"])
def test_a_damaged_file_is_named(bundle: Path, tmp_path: Path, name: str) -> None:
    copy = tmp_path / "damaged.bundle"
    shutil.copytree(bundle, copy)
    data = bytearray((copy / name).read_bytes())
    data[:4] = b"\0\0\0\0"
    (copy / name).write_bytes(data)
    done = edge_run(str(copy), "x")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert name in done.stderr


def test_memory_that_is_not_ffn_memory_is_refused_by_name(bundle: Path, tmp_path: Path) -> None:
    copy = tmp_path / "kv.bundle"
    shutil.copytree(bundle, copy)
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["memory"]["kind"] = "kv"
    (copy / "manifest.json").write_text(json.dumps(manifest))
    done = edge_run(str(copy), "x")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "of the kind kv; native/paged reads ffn" in done.stderr
