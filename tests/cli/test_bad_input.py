"""Each bad input is one line that names the file and what is wrong, and a non-zero exit code."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_runtime.cli.main import main

PROMPT = "Hafnium. Hafnium is a transition metal in period 6 of the periodic table. Its atomic number is"


@pytest.fixture
def copy(tiny_bundle: Path, tmp_path: Path) -> Path:
    """A copy to damage; the 90 MB encoder stays one file."""
    copy = tmp_path / "copy.bundle"
    shutil.copytree(tiny_bundle, copy, copy_function=os.link)
    return copy


def rewrite(path: Path, change: Callable[[bytearray], object]) -> None:
    """Changes a file of a copy without touching the one that it is linked to."""
    data = bytearray(path.read_bytes())
    change(data)
    path.unlink()
    path.write_bytes(data)


def manifest(copy: Path, change: Callable[[dict], object]) -> None:
    def edit(data: bytearray) -> None:
        record = json.loads(bytes(data))
        change(record)
        data[:] = json.dumps(record).encode()

    rewrite(copy / "manifest.json", edit)


def refuses(capsys: pytest.CaptureFixture[str], arguments: list[str], *parts: str, code: int = 1) -> None:
    assert main(arguments) == code
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("edge-runtime: ")
    assert "internal error" not in lines[0]
    assert "Traceback" not in lines[0]
    for part in parts:
        assert part in lines[0]


FILES = [
    "anchor.paged.pte",
    "memory/level1.safetensors",
    "memory/state-1.json",
    "router/minilm.pte",
    "router/minilm.tokenizer.json",
    "router/static.safetensors",
    "router/tree.safetensors",
    "tokenizer.json",
]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("verb", ["run", "inspect", "verify"])
def test_a_missing_file(copy: Path, capsys: pytest.CaptureFixture[str], name: str, verb: str) -> None:
    (copy / name).unlink()
    refuses(capsys, [verb, str(copy), *([PROMPT] if verb == "run" else [])], name, "missing")


@pytest.mark.parametrize("name", FILES)
def test_a_truncated_file(copy: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    rewrite(copy / name, lambda data: data.__delitem__(slice(len(data) // 2, None)))
    refuses(capsys, ["run", str(copy), PROMPT], name, "bytes")


@pytest.mark.parametrize("name", [name for name in FILES if name != "router/minilm.pte"])
def test_a_file_that_is_something_else(copy: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    rewrite(copy / name, lambda data: data.__setitem__(slice(0, 64), b"\xff" * 64))
    router = "static" if "static" in name else "minilm"
    refuses(capsys, ["run", str(copy), PROMPT, "--router", router], name)
    refuses(capsys, ["verify", str(copy)], name)


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b"\xff\xfe", b'{"format": "other"}'])
def test_a_bad_manifest(copy: Path, capsys: pytest.CaptureFixture[str], damage: bytes) -> None:
    rewrite(copy / "manifest.json", lambda data: data.__setitem__(slice(None), damage))
    refuses(capsys, ["run", str(copy), PROMPT], "manifest.json")


def test_a_manifest_of_a_newer_schema(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest(copy, lambda record: record.update(schema=99))
    refuses(capsys, ["run", str(copy), PROMPT], "schema 99", "update edge-runtime")


@pytest.mark.parametrize("path", ["../secret", "/etc/passwd", "a\\b"])
def test_a_path_that_leaves_the_bundle(copy: Path, capsys: pytest.CaptureFixture[str], path: str) -> None:
    manifest(copy, lambda record: record["files"].update({path: record["files"]["tokenizer.json"]}))
    refuses(capsys, ["run", str(copy), PROMPT], "unsafe path")


def test_a_header_that_claims_offsets_outside_the_file(
    copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def stretch(data: bytearray) -> None:
        at = data.index(b'"data_offsets"')
        end = data.index(b"]", at)
        old = bytes(data[at:end])
        data[at:end] = old[: old.rindex(b",") + 1] + b"9" * (len(old) - old.rindex(b",") - 1)

    rewrite(copy / "memory/level1.safetensors", stretch)
    refuses(capsys, ["run", str(copy), PROMPT], "level1.safetensors")


def test_a_checksum_mismatch(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # In every block of level 1, so that the routed one is among them.
    def damage(data: bytearray) -> None:
        for row in range(4):
            data[16384 * (1 + row) + 5000] ^= 1

    rewrite(copy / "memory/level1.safetensors", damage)
    refuses(capsys, ["run", str(copy), PROMPT], "level1.safetensors", "checksum", "layer 0")
    refuses(capsys, ["verify", str(copy)], "level1.safetensors", "checksum")
    assert main(["verify", str(copy), "--json"]) == 1
    assert len(json.loads(capsys.readouterr().out)["findings"]) == 1


def test_a_tokenizer_that_does_not_fit_the_anchor(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = (copy / "router/minilm.tokenizer.json").read_bytes()
    rewrite(copy / "tokenizer.json", lambda data: data.__setitem__(slice(None), other))
    manifest(copy, lambda record: record["files"]["tokenizer.json"].update(bytes=len(other)))
    refuses(capsys, ["run", str(copy), PROMPT], "tokenizer.json", "tokens", "the anchor was trained with")


def test_a_budget_smaller_than_one_lease_says_what_works(
    tiny_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["run", str(tiny_bundle), PROMPT, "--budget"]
    refuses(capsys, [*arguments, "49151"], "smallest budget that works is 49152")
    assert main([*arguments, "49152"]) == 0


@pytest.mark.parametrize("budget", ["much", "-1", "0", "8XB"])
def test_a_budget_that_is_none(tiny_bundle: Path, capsys: pytest.CaptureFixture[str], budget: str) -> None:
    refuses(capsys, ["run", str(tiny_bundle), PROMPT, f"--budget={budget}"], budget)


def test_a_prompt_longer_than_the_context(tiny_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refuses(capsys, ["run", str(tiny_bundle), "word " * 300], "context's 96", "shorten it")


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--temperature", "-1"], "temperature"),
        (["--max-tokens", "0"], "max_tokens"),
        (["--block", "7:1"], "7:1"),
        (["--engine", "magic"], "magic"),
        (["--seed", "-4"], "seed"),
        (["--threads", "0"], "threads"),
        (["--threads", "1000000000000"], "threads"),
    ],
)
def test_an_option_out_of_range(
    tiny_bundle: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], part: str
) -> None:
    refuses(capsys, ["run", str(tiny_bundle), PROMPT, *arguments], part)


def test_a_program_of_a_flavour_that_is_not_known(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest(copy, lambda data: data["programs"][0].update(flavour="liquid"))
    refuses(
        capsys,
        ["run", str(copy), PROMPT, "--engine", "executorch/liquid"],
        "executorch/liquid",
        "executorch/paged",
    )


def test_verify_json_says_why_a_bundle_does_not_open(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (copy / "manifest.json").unlink()
    assert main(["verify", str(copy), "--json"]) == 1
    out, err = capsys.readouterr()
    (finding,) = json.loads(out)["findings"]
    assert finding["message"] in err
    assert "not a bundle" in finding["message"]


def test_no_bundle_at_all(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refuses(capsys, ["run", str(tmp_path / "nowhere"), PROMPT], "nowhere", "no such directory")
    refuses(capsys, ["run", str(tmp_path), PROMPT], "not a bundle")


QUESTION = {
    "prompt": PROMPT,
    "answer": "72",
    "entity": "Hafnium",
    "fact": "atomic number",
    "kind": "element",
    "bucket": 0,
    "rare": True,
}


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"prompt": 5}, "'prompt' must be text"),
        ({"answer": None}, "'answer' must be text"),
        ({"bucket": "0"}, "'bucket' must be a whole number"),
        ({"rare": "no"}, "'rare' must be true or false"),
    ],
)
def test_a_question_of_the_wrong_kind(
    tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], change: dict, part: str
) -> None:
    path = tmp_path / "questions.jsonl"
    path.write_text(f"{json.dumps(QUESTION)}\n\n{json.dumps(QUESTION | change)}\n")
    refuses(capsys, ["evaluate", str(tiny_bundle), str(path)], "line 3", part)


def test_questions_that_a_table_or_a_line_could_be_confused_by(
    tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    path = tmp_path / "questions.jsonl"
    odd = {"entity": "[red]x[/blue]", "kind": "[/b]", "prompt": "A\u2028B"}
    path.write_text(json.dumps(QUESTION | odd, ensure_ascii=False) + "\n", encoding="utf-8")
    assert main(["evaluate", str(tiny_bundle), str(path)]) == 0
    out, err = capsys.readouterr()
    assert "[red]x[/blue]" in " ".join(out.split())
    assert err == ""  # to a file, not even the empty line of a bar that was not shown
    path.write_bytes(b"\xff\xfe")
    refuses(capsys, ["evaluate", str(tiny_bundle), str(path)], "questions.jsonl", "not UTF-8")
    refuses(capsys, ["evaluate", str(tiny_bundle), str(path), "--limit", "-1"], "--limit -1")


def test_what_the_system_refuses_names_the_file_first(
    tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = tmp_path / "none" / "out"
    refuses(
        capsys, ["personal", "export", str(tiny_bundle), "-o", "x", "--key-file", str(missing)], "no such"
    )
    refuses(capsys, ["report", str(missing)], f"edge-runtime: {missing}: no such file or directory")


def test_too_little_memory_is_no_internal_error(
    tiny_bundle: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def allocate(_: object) -> None:
        raise MemoryError("Unable to allocate 14.0 TiB")

    monkeypatch.setattr("edge_runtime.cli.inspect.Bundle.open", allocate)
    refuses(capsys, ["inspect", str(tiny_bundle)], "out of memory: Unable to allocate 14.0 TiB")


@pytest.mark.parametrize("line", ["{", "[]", '{"prompt": "x"}'])
def test_bad_questions(
    tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], line: str
) -> None:
    path = tmp_path / "questions.jsonl"
    refuses(capsys, ["evaluate", str(tiny_bundle), str(path)], "questions.jsonl", "no such file")
    path.write_text(line + "\n")
    refuses(capsys, ["evaluate", str(tiny_bundle), str(path)], "questions.jsonl", "line 1")
    path.write_text("")
    refuses(capsys, ["evaluate", str(tiny_bundle), str(path)], "no questions")


@pytest.mark.parametrize("arguments", [[], ["nothing"], ["run"], ["run", "x", "y", "--block", "1"]])
def test_bad_usage_is_one_line(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        main(arguments)
    assert raised.value.code == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_ctrl_c_is_one_line(tiny_bundle: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "edge_runtime.cli.main", "chat", str(tiny_bundle)],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    assert "/reset" in process.stderr.readline()  # it waits for a message now
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    assert process.stderr.read() == "edge-runtime: interrupted\n"
    assert process.wait() == 130


def test_a_reader_that_leaves_is_no_failure_to_report(tiny_bundle: Path) -> None:
    command = f"{sys.executable} -m edge_runtime.cli.main inspect {tiny_bundle} --json | true"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.stderr == ""
