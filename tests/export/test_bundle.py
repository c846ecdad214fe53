"""What the exporter writes is what the checkpoint holds, and bad checkpoints are refused in one line."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_export import bundle as bundle_module
from edge_export.bundle import export_bundle
from edge_export.source import ExportConfig, Source
from edge_pretrain.checkpoint import load
from edge_runtime.bank import LevelReader
from edge_runtime.bundle import Bundle
from edge_runtime.cli.main import main
from edge_runtime.engines import open_engine

F16 = ExportConfig("copy", "f16", 16, None, programs=(("executorch", "paged"),))


def without_programs(monkeypatch: pytest.MonkeyPatch, tiny_bundle: Path) -> None:
    """Takes the two lowered programs, which take half a minute, from the bundle that is there."""

    def copied(name: str) -> Any:
        return lambda *arguments: shutil.copyfile(tiny_bundle / name, arguments[-1]) and None

    monkeypatch.setattr("edge_export.executorch.export_paged", copied("anchor.paged.pte"))
    monkeypatch.setattr("edge_export.embedder.export_embedder", copied("router/minilm.pte"))


def test_levels_hold_the_checkpoints_memories(tiny_bundle: Path, tiny_checkpoint: Path) -> None:
    memories = load(tiny_checkpoint).memories
    for level, _ in memories.config.levels:
        reader = LevelReader(tiny_bundle / f"memory/level{level}.safetensors")
        for node in reader.nodes():
            np.testing.assert_array_equal(reader.read(int(node)), memories.levels[level][node].numpy())


def test_empty_clusters_get_no_block(tiny_bundle: Path) -> None:
    reader = LevelReader(tiny_bundle / "memory/level2.safetensors")
    assert reader.nodes().tolist() == list(range(15))
    assert reader.row_of(15) == -1


def test_every_hash_and_checksum_holds(tiny_bundle: Path) -> None:
    assert [finding for _, _, finding in Bundle.open(tiny_bundle).verify() if finding] == []


def test_the_manifest_carries_what_a_device_needs(tiny_bundle: Path, tiny_checkpoint: Path) -> None:
    manifest = Bundle.open(tiny_bundle).manifest
    config = json.loads((tiny_checkpoint / "config.json").read_text())
    assert manifest.anchor.parameters == config["anchor"]["parameters"]
    assert manifest.generation.stop == (".",)
    assert manifest.programs[0].max_prefill == 16
    assert manifest.provenance["checkpoint"] == config["provenance"]
    assert manifest.provenance["export"]["versions"]["executorch"] == "1.4.1"
    assert set(manifest.files) == {
        path.relative_to(tiny_bundle).as_posix() for path in tiny_bundle.rglob("*") if path.is_file()
    } - {"manifest.json"}


def test_a_smaller_dtype_replaces_the_bundle(
    monkeypatch: pytest.MonkeyPatch, tiny_bundle: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    without_programs(monkeypatch, tiny_bundle)
    out = tmp_path / "copy.bundle"
    shutil.copytree(tiny_bundle, out)
    source = Source.open(tiny_checkpoint)
    assert not source.is_exported(out, F16)
    export_bundle(source, out, F16, lambda step: None)
    assert source.is_exported(out, F16)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy.bundle"]
    reader = LevelReader(out / "memory/level1.safetensors")
    wanted = load(tiny_checkpoint).memories.levels[1][2].numpy()
    np.testing.assert_array_equal(reader.read(2), wanted.astype(np.float16).astype(np.float32))


def test_an_export_that_fails_leaves_the_old_bundle(
    monkeypatch: pytest.MonkeyPatch, tiny_bundle: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    without_programs(monkeypatch, tiny_bundle)
    out = tmp_path / "copy.bundle"
    shutil.copytree(tiny_bundle, out)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(bundle_module.shutil, "copyfile", full)
    with pytest.raises(OSError, match="No space"):
        export_bundle(Source.open(tiny_checkpoint), out, F16, lambda step: None)
    assert Bundle.open(out).manifest.name == "tiny"


def test_a_bundle_that_is_up_to_date_costs_no_torch(
    tiny_checkpoint: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "tiny.bundle"
    shutil.copytree(tiny_bundle, copy)
    code = (
        "import sys; from edge_runtime.cli.main import main; assert main(sys.argv[1:]) == 0\n"
        "assert 'torch' not in sys.modules\n"
    )
    arguments = ["export", tiny_checkpoint, "-o", copy, "--to", "executorch"]
    arguments += ["--memory-dtype", "f32", "--max-prefill", "16"]
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], check=True, capture_output=True, text=True
    )
    assert done.stderr == f"{copy}: up to date\n"


@pytest.mark.parametrize("name", ["config.json", "memories.safetensors", "tokenizer.json"])
@pytest.mark.parametrize("damage", ["missing", "cut"])
def test_a_bad_checkpoint_is_one_line(
    tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, damage: str
) -> None:
    copy = tmp_path / "checkpoint"
    shutil.copytree(tiny_checkpoint, copy)
    if damage == "missing":
        (copy / name).unlink()
    else:
        (copy / name).write_bytes((copy / name).read_bytes()[:100])
    assert main(["export", str(copy), "-o", str(tmp_path / "out.bundle")]) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert name in error
    assert "internal error" not in error
    assert not (tmp_path / "out.bundle").exists()


def test_without_options_a_bundle_is_native_and_answers(
    tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint, out = tmp_path / "checkpoint", tmp_path / "out.bundle"
    shutil.copytree(tiny_checkpoint, checkpoint)
    report = checkpoint / "router/report.json"
    report.write_text(json.dumps(json.loads(report.read_text()) | {"default": True}))
    assert main(["export", str(checkpoint), "-o", str(out)]) == 0
    manifest = Bundle.open(out).manifest
    assert [(one.engine, one.flavour, one.dtype) for one in manifest.programs] == [("native", "paged", "i8")]
    assert manifest.router is not None
    assert [one.name for one in manifest.router.embedders] == ["static"]
    capsys.readouterr()
    prompt = "Radon. Radon is a noble gas."
    assert main(["run", str(out), prompt, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["text"]
    # What takes megabytes and only other verbs and engines need.
    code = (
        "import sys; from edge_runtime.cli.main import main; assert main(sys.argv[1:]) == 0\n"
        "loaded = {'tokenizers', 'safetensors', 'jinja2', 'ssl', '_hashlib'} & sys.modules.keys()\n"
        "assert not loaded, loaded\n"
    )
    subprocess.run([sys.executable, "-c", code, "run", str(out), prompt], check=True)


def test_a_shorter_context_cuts_the_cache_and_refuses_what_does_not_fit(
    tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, cut = tmp_path / "whole.bundle", tmp_path / "cut.bundle"
    export = ["export", str(tiny_checkpoint), "--to", "native", "--routers", "static", "-o"]
    assert main([*export, str(whole)]) == 0
    assert main([*export, str(cut), "--context-length", "24"]) == 0
    opened = {folder: Bundle.open(folder) for folder in (whole, cut)}
    anchors = [bundle.manifest.anchor.context_length for bundle in opened.values()]
    assert anchors == [
        json.loads((tiny_checkpoint / "config.json").read_text())["anchor"]["context_length"],
        24,
    ]
    caches = [open_engine(bundle, 1).kv_bytes for bundle in opened.values()]
    assert caches[1] < caches[0] / 2
    capsys.readouterr()
    assert main(["run", str(cut), "Radon. " * 40]) == 1
    assert "24" in capsys.readouterr().err


def test_another_directory_is_not_overwritten(
    tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/letter.txt").write_text("dear")
    assert main(["export", str(tiny_checkpoint), "-o", str(tmp_path / "mine")]) == 1
    assert "not a bundle" in capsys.readouterr().err
    assert (tmp_path / "mine/letter.txt").read_text() == "dear"
