"""Hub ids: what is asked of the hub, and how its refusals read; the hub is a stand-in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from families import save
from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError, RepositoryNotFoundError

from edge_export.hub import folder_of
from edge_runtime.bundle import Bundle
from edge_runtime.cli.main import main

ID = "some-org/Tiny-Llama.3"


def hub(monkeypatch: pytest.MonkeyPatch, answer: Path | Exception) -> list[dict[str, Any]]:
    """Stands in for the download; the calls that it gets."""
    calls: list[dict[str, Any]] = []

    def snapshot_download(model: str, **options: Any) -> str:
        calls.append({"model": model, **options})
        if isinstance(answer, Exception):
            raise answer
        return str(answer)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    return calls


def refusal(kind: type[Exception], text: str) -> Exception:
    """The hub's exceptions ask for the response that they come from."""
    error = kind.__new__(kind)
    error.args = (text,)
    return error


def test_an_id_is_exported_as_its_snapshot_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save("llama3", tmp_path / "snapshot")
    calls, out = hub(monkeypatch, tmp_path / "snapshot"), tmp_path / "tiny.bundle"
    monkeypatch.chdir(tmp_path)
    arguments = ["export", f"{ID}@v2", "-o", str(out), "--to", "onnx"]
    assert main(arguments) == 0
    assert calls[0]["model"] == ID
    assert calls[0]["revision"] == "v2"
    assert not any(pattern in ("*", "*.bin", "*.pth") for pattern in calls[0]["allow_patterns"])
    assert Bundle.open(out).manifest.provenance["checkpoint"] == {"model_type": "llama"}


def test_a_folder_is_not_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = hub(monkeypatch, RuntimeError("asked"))
    monkeypatch.chdir(tmp_path)
    Path("runs/checkpoint").mkdir(parents=True)
    for name in ("runs/checkpoint", "nothing", "../some/where/else", str(tmp_path / "nothing")):
        assert folder_of(name, lambda step: None) == Path(name)
    assert calls == []


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (
            refusal(LocalEntryNotFoundError, "Cannot reach\nthe server"),
            "not reached (Cannot reach the server)",
        ),
        (ConnectionError("no network"), "not reached (no network)"),
        (refusal(RepositoryNotFoundError, "404"), "has no such model"),
        (refusal(GatedRepoError, "403"), "asks for consent"),
    ],
)
def test_what_is_not_to_be_had_is_one_line(
    error: Exception,
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    hub(monkeypatch, error)
    monkeypatch.chdir(tmp_path)
    assert main(["export", ID, "-o", str(tmp_path / "out.bundle")]) == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if ID in line]
    assert says in lines[-1]
    assert "no such folder" in lines[-1]
    assert "internal error" not in lines[-1]
    assert not (tmp_path / "out.bundle").exists()


def test_offline_is_said_without_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real client, told that there is no network."""
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    from edge_runtime.errors import NotFoundError

    with pytest.raises(NotFoundError, match="the hub is not reached"):
        folder_of(ID, lambda step: None)
