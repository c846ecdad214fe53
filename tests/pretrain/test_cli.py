import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tiny_recipe import TINY

from edge_pretrain import checkpoint
from edge_pretrain.train import Trainer
from edge_runtime.cli.main import main


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "tiny.toml"
    path.write_text(TINY)
    return path


def pretrain(recipe: Path, out: Path, *more: str) -> int:
    return main(["pretrain", "--recipe", str(recipe), "-o", str(out), "--threads", "1", *more])


@pytest.fixture(scope="module")
def finished(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run")
    assert pretrain(recipe, out) == 0
    return out


def weights(run: Path) -> list[bytes]:
    return [(run / "checkpoint" / f"{name}.safetensors").read_bytes() for name in ("anchor", "memories")]


def test_it_writes_a_checkpoint_that_says_what_made_it(finished: Path):
    loaded = checkpoint.load(finished / "checkpoint")
    assert loaded.memories.config.rows == (2, 4)
    assert any(block[:, :, 2].abs().max() > 0 for block in loaded.memories.levels.values())
    provenance = loaded.config["provenance"]
    assert provenance["seed"] == 0
    assert provenance["configuration"]["phases"]["anchor"]["steps"] == 6
    assert {"torch", "numpy", "tokenizers"} <= provenance["versions"].keys()
    assert "git_revision" in provenance
    questions = [json.loads(line) for line in loaded.questions_path.read_text().splitlines()]
    assert {"prompt", "answer", "entity", "fact", "kind", "bucket", "rare"} == questions[0].keys()
    assert any(question["kind"] == "person" for question in questions)


@pytest.mark.parametrize("at", [2, 9], ids=["in the first phase", "while co-training"])
def test_ctrl_c_then_resuming_gives_the_same_bits(
    finished: Path, recipe: Path, tmp_path: Path, at: int, monkeypatch: pytest.MonkeyPatch, capfd
):
    run = tmp_path / "run"
    run.mkdir()
    shutil.copytree(finished / "prepared", run / "prepared")
    original, taken = Trainer.train_step, []

    def interrupted(trainer: Trainer) -> tuple[float, float]:
        taken.append(trainer.step)
        if len(taken) == at:
            os.kill(os.getpid(), signal.SIGINT)
        return original(trainer)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "train_step", interrupted)
        capfd.readouterr()
        assert pretrain(recipe, run) == 130
    errors = capfd.readouterr().err
    assert "run again to resume" in errors.splitlines()[-1]
    assert "Traceback" not in errors
    assert not (run / "checkpoint" / "config.json").exists()

    assert pretrain(recipe, run) == 0
    assert weights(run) == weights(finished)


def test_ctrl_c_before_training_says_how_to_resume(recipe: Path, tmp_path: Path, monkeypatch, capfd):
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("edge_pretrain.embed.MiniLM.embed", interrupted)
    assert pretrain(recipe, tmp_path) == 130
    assert capfd.readouterr().err.splitlines()[-1] == "edge-runtime: stopped; run again to resume"


def test_another_seed_is_another_training(finished: Path, recipe: Path, tmp_path: Path):
    assert pretrain(recipe, tmp_path, "--seed", "1") == 0
    assert weights(tmp_path) != weights(finished)


def test_a_finished_run_returns_at_once_without_torch(finished: Path, recipe: Path):
    before = (finished / "checkpoint" / "config.json").stat().st_mtime_ns
    code = (
        "import sys; from edge_runtime.cli.main import main; code = main(sys.argv[1:]);"
        "assert not {'torch', 'transformers'} & sys.modules.keys(); sys.exit(code)"
    )
    arguments = ["pretrain", "--recipe", str(recipe), "-o", str(finished)]
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True
    )
    assert time.monotonic() - started < 3
    assert "up to date" in done.stderr
    assert (finished / "checkpoint" / "config.json").stat().st_mtime_ns == before


def test_a_checkpoint_that_lost_a_file_is_written_again(finished: Path, recipe: Path, tmp_path: Path):
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    (run / "checkpoint" / "tokenizer.json").unlink()
    assert pretrain(recipe, run) == 0
    assert checkpoint.load(run / "checkpoint")
    assert weights(run) == weights(finished)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--recipe", "nonesuch"], "nonesuch: neither a recipe"),
        (["--threads", "0"], "--threads must be 1 or more"),
        (["--embedder", "/nonexistent/minilm"], "/nonexistent/minilm"),
    ],
)
def test_a_bad_argument_is_one_line(recipe: Path, tmp_path: Path, arguments: list[str], says: str, capfd):
    capfd.readouterr()
    assert pretrain(recipe, tmp_path, *arguments) == 1
    errors = capfd.readouterr().err
    assert says in errors.splitlines()[-1]
    assert "Traceback" not in errors
