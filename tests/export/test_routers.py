"""Which routers a bundle carries, which one is its default, and that a stale one is refused."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from edge_export.routers import write_routers
from edge_export.source import ExportConfig, Source
from edge_runtime.cli.main import main
from edge_runtime.errors import BadFormatError, InvalidArgumentError

CONFIG = ExportConfig("copy", "f16", 16, None, programs=(("executorch", "paged"),))


@pytest.fixture
def checkpoint(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    copy = tmp_path / "checkpoint"
    shutil.copytree(tiny_checkpoint, copy)
    return copy


@pytest.fixture
def root(monkeypatch: pytest.MonkeyPatch, tiny_bundle: Path, tmp_path: Path) -> Path:
    """Where routers are written; the lowering, which takes long, is taken from the bundle that is there."""
    program = tiny_bundle / "router/minilm.pte"
    monkeypatch.setattr(
        "edge_export.embedder.export_embedder", lambda *arguments: shutil.copyfile(program, arguments[-1])
    )
    (tmp_path / "root/router").mkdir(parents=True)
    return tmp_path / "root"


def written(root: Path, checkpoint: Path, config: ExportConfig = CONFIG) -> tuple[list[str], str, str]:
    """The names of the routers, the default's, and what the export said."""
    said: list[str] = []
    entries, default = write_routers(root, Source.open(checkpoint), config, said.append)
    return [entry["name"] for entry in entries], default, "\n".join(said)


def change_report(checkpoint: Path, **values: object) -> None:
    path = checkpoint / "router/report.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_a_router_that_agrees_becomes_the_default_and_one_that_does_not_stays_beside(
    root: Path, checkpoint: Path
) -> None:
    names, default, said = written(root, checkpoint)
    assert (names, default) == (["static", "minilm"], "minilm")
    assert "static is not fit to be the default: leaf agreement 25.0%, answers 10.0% beside 20.0%" in said
    change_report(checkpoint, default=True)
    names, default, said = written(root, checkpoint)
    assert (names, default) == (["static", "minilm"], "static")
    assert "static is fit" in said
    tables = (root / "router/static.safetensors").read_bytes()
    assert tables == (checkpoint / "router/static.safetensors").read_bytes()


def test_where_the_engine_runs_none_minilm_comes_only_beside_a_static_router_that_is_not_fit(
    root: Path, checkpoint: Path
) -> None:
    native = replace(CONFIG, programs=(("native", "paged"),))
    assert written(root, checkpoint, native)[:2] == (["static", "minilm"], "minilm")
    change_report(checkpoint, default=True)
    assert written(root, checkpoint, native)[:2] == (["static"], "static")
    shutil.rmtree(checkpoint / "router")
    assert written(root, checkpoint, native)[:2] == (["minilm"], "minilm")


def test_the_only_router_is_the_default(root: Path, checkpoint: Path) -> None:
    names, default, _ = written(root, checkpoint, replace(CONFIG, routers=("static",)))
    assert (names, default) == (["static"], "static")
    assert [path.name for path in (root / "router").iterdir()] == ["static.safetensors"]


def test_a_checkpoint_without_a_static_router_says_how_to_make_one(root: Path, checkpoint: Path) -> None:
    shutil.rmtree(checkpoint / "router")
    names, default, said = written(root, checkpoint)
    assert (names, default) == (["minilm"], "minilm")
    assert "edge_pretrain.router train" in said
    with pytest.raises(InvalidArgumentError, match=r"edge_pretrain\.router train"):
        written(root, checkpoint, replace(CONFIG, routers=("static",)))


@pytest.mark.parametrize("name", ["config.json", "tree.safetensors", "router/static.safetensors"])
def test_a_router_of_another_training_is_refused(root: Path, checkpoint: Path, name: str) -> None:
    with (checkpoint / name).open("ab") as file:
        file.write(b" ")
    with pytest.raises(BadFormatError, match=r"not the file that report\.json speaks of"):
        written(root, checkpoint)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"sha256": {}}'])
def test_a_damaged_report_is_refused(root: Path, checkpoint: Path, text: str) -> None:
    (checkpoint / "router/report.json").write_text(text)
    with pytest.raises(BadFormatError, match="train the router again"):
        written(root, checkpoint)


def test_another_router_makes_another_bundle(tiny_bundle: Path, checkpoint: Path) -> None:
    source, config = Source.open(checkpoint), replace(CONFIG, name="tiny", memory_dtype="f32")
    assert source.is_exported(tiny_bundle, config)
    change_report(checkpoint, default=True)
    assert not source.is_exported(tiny_bundle, config)
    assert not Source.open(checkpoint).is_exported(tiny_bundle, replace(config, routers=("static",)))


def test_unknown_routers_are_named(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["export", str(checkpoint), "-o", str(tmp_path / "out"), "--routers", "static,magic"]
    assert main(arguments) == 1
    assert "'magic': routers are static, minilm, minilm-int8" in capsys.readouterr().err
