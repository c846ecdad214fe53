"""The console script on the tiny bundle: what each verb prints."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from edge_runtime.cli.main import OTHERS, main
from edge_runtime.cli.verb import ENTRY_POINT_GROUP

PROMPT = "Hafnium. Hafnium is a transition metal in period 6 of the periodic table. Its atomic number is"
REQUIRED = {
    "text", "path", "bytes_read", "fetch_ms", "ttft_ms", "decode_tokens_per_s", "resident_bytes", "bank_bytes"
}  # fmt: skip


def test_run_prints_the_text_and_on_request_what_it_cost(
    tiny_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", str(tiny_bundle), PROMPT, "--stats"]) == 0
    out, err = capsys.readouterr()
    assert out.endswith("\n")
    assert "path 0 > " in err
    assert "first token" in err


def test_run_json_is_one_object(tiny_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", str(tiny_bundle), PROMPT, "--json", "--budget", "100KB"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record.keys() >= REQUIRED
    assert record["budget_bytes"] == 100_000
    assert main(["run", str(tiny_bundle), PROMPT]) == 0
    assert capsys.readouterr().out.rstrip("\n") == record["text"].rstrip("\n")


def test_run_reads_the_prompt_from_standard_input(
    tiny_bundle: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(PROMPT + "\n"))
    assert main(["run", str(tiny_bundle), "-", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["prompt"] == PROMPT


def test_run_options_reach_the_generation(tiny_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["run", str(tiny_bundle), PROMPT, "--json", "--max-tokens", "3", "--stop", "no such text"]

    def record(*more: str) -> dict[str, object]:
        assert main([*arguments, *more]) == 0
        found: dict[str, object] = json.loads(capsys.readouterr().out)
        return found

    plain = record()
    assert plain["generated_tokens"] == 3
    assert record("--memory", "generic")["path"] == []
    assert record("--memory", "none")["bytes_read"] == 0
    assert record("--block", "1:0")["path"] != plain["path"]
    draws = [record("--temperature", "3", "--seed", seed)["text"] for seed in ("1", "1", "2")]
    assert draws[0] == draws[1] != draws[2]
    assert [report["backend"] for report in record("--storage", "mapped")["storage"]] == ["mapped"] * 3  # type: ignore[index, attr-defined]


def test_chat_goes_on_until_the_input_ends(
    tiny_bundle: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [PROMPT, "/stats", "word " * 300, "/reset", "Radon", ""]
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(lines)))
    assert main(["chat", str(tiny_bundle)]) == 0
    out, err = capsys.readouterr()
    assert out.count("\n") >= 2
    assert "first token" in err
    assert "shorten it; /reset starts a new conversation" in err


def test_chat_refuses_its_options_before_the_first_message(
    tiny_bundle: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{PROMPT}\nRadon"))
    assert main(["chat", str(tiny_bundle), "--temperature", "-1"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("temperature") == 1


def test_stats_before_the_first_turn_are_not_zeros(
    tiny_bundle: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("/stats\n"))
    assert main(["chat", str(tiny_bundle)]) == 0
    assert capsys.readouterr().err.splitlines()[-1] == "no turn yet"


@pytest.mark.parametrize("verb", [["run", "-", "--json"], ["chat"]])
def test_input_that_is_not_utf8_is_answered(
    tiny_bundle: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, verb: list[str]
) -> None:
    text = io.TextIOWrapper(io.BytesIO(b"Radium \xff is\n"), encoding="utf-8")
    monkeypatch.setattr("sys.stdin", text)
    name, *more = verb
    assert main([name, str(tiny_bundle), *more, "--max-tokens", "2"]) == 0
    out, err = capsys.readouterr()
    assert "edge-runtime: " not in err
    if "--json" in more:
        assert json.loads(out)["prompt"].encode() == "Radium \ufffd is".encode()


def test_inspect_shows_levels_and_files(tiny_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(tiny_bundle)]) == 0
    out = capsys.readouterr().out
    assert "185,408 parameters" in out
    assert "16,384" in out
    assert "memory/level2.safetensors" in out
    assert main(["inspect", str(tiny_bundle), "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["anchor"]["d_model"] == 64
    assert record["bank_bytes"] == sum(path.stat().st_size for path in tiny_bundle.glob("memory/level*"))


def test_verify_says_that_all_holds(tiny_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(tiny_bundle)]) == 0
    assert "every hash and checksum holds" in capsys.readouterr().out


def test_evaluate_tells_right_from_wrong(
    tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # A model of random weights is right about what it says: take its fetched answer for the truth.
    assert main(["run", str(tiny_bundle), PROMPT, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)["text"].strip()
    fields = {"entity": "Hafnium", "fact": "atomic number", "kind": "element"}
    questions = [
        {"prompt": PROMPT, "answer": said, "bucket": 0, "rare": True} | fields,
        {"prompt": PROMPT, "answer": "not what it says", "bucket": 4, "rare": False} | fields,
    ]
    path = tmp_path / "questions.jsonl"
    path.write_text("".join(json.dumps(question) + "\n" for question in questions))
    assert main(["evaluate", str(tiny_bundle), str(path), "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["accuracy"]["element, rarest fifth"]["fetched"] == 1
    assert record["accuracy"]["element, others"]["fetched"] == 0
    assert record["accuracy"]["all"]["fetched"] == 0.5
    answers = record["questions"][0]["answers"]
    assert answers["fetched"] == {"text": said, "right": True}
    assert len({answer["text"] for answer in answers.values()}) == 4
    assert record["bank_peak_bytes"] <= record["budget_bytes"] < record["bank_bytes"]
    assert main(["evaluate", str(tiny_bundle), str(path), "--limit", "1"]) == 0
    out = capsys.readouterr().out
    assert "held-out questions" in out
    assert "resident" in out


@pytest.mark.parametrize("verb", ["run", "evaluate"])
def test_the_runtime_process_never_imports_torch(tiny_bundle: Path, tiny_checkpoint: Path, verb: str) -> None:
    code = (
        "import sys; from edge_runtime.cli.main import main; assert main(sys.argv[1:]) == 0\n"
        "loaded = {'torch', 'executorch', 'transformers', 'edge_pretrain', 'edge_export'} & sys.modules.keys()\n"
        "assert not loaded, loaded\n"
    )
    last = PROMPT if verb == "run" else str(tiny_checkpoint / "questions.jsonl")
    subprocess.run([sys.executable, "-c", code, verb, str(tiny_bundle), last], check=True)


def test_help_says_what_the_budget_covers(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["run", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "it covers bank bytes only: the KV cache and the weights are reported beside it" in text


def test_help_lists_the_verbs_of_other_packages(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    out = capsys.readouterr().out
    assert all(verb in out for verb in ("run", "chat", "evaluate", "inspect", "verify", "pretrain", "export"))


@pytest.mark.parametrize("name", sorted(OTHERS))
def test_help_says_of_other_packages_verbs_what_they_say_themselves(name: str) -> None:
    (entry,) = metadata.entry_points(group=ENTRY_POINT_GROUP, name=name)
    assert entry.load().help == OTHERS[name]
