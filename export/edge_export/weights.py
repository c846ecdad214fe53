"""The tensors of a Hugging Face folder: safetensors, whole or in shards, never pickles."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from edge_runtime.errors import BadFormatError, NotFoundError, UnsupportedError

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json", "model.bin", "consolidated.00.pth")
FLOATS = (torch.float32, torch.float16, torch.bfloat16)


def weight_files(folder: Path) -> list[Path]:
    """The files that hold the weights.

    Raises:
        NotFoundError: none, or a shard is missing.
        UnsupportedError: there are only pickles.
        BadFormatError: the index is damaged.
    """
    if (folder / SINGLE).is_file():
        return [folder / SINGLE]
    index = folder / INDEX
    if not index.is_file():
        if pickles := [name for name in PICKLES if (folder / name).is_file()]:
            raise UnsupportedError(
                f"{folder / pickles[0]}: a pickle can run any code, so it is not opened: "
                f"save the checkpoint as safetensors (save_pretrained does)"
            )
        raise NotFoundError(f"{folder}: neither {SINGLE} nor {INDEX}: name a folder with a model's weights")
    try:
        names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        safe = all(isinstance(name, str) and Path(name).name == name for name in names)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadFormatError(f"{index}: not an index of shards ({error!r}): copy it again") from None
    if not safe or not names:
        raise BadFormatError(f"{index}: its shards are not files of the same folder: copy it again")
    for name in sorted(names):
        if not (folder / name).is_file():
            raise NotFoundError(f"{folder / name}: a shard that {INDEX} names is missing: copy it again")
    return [folder / name for name in sorted(names)]


class Weights:
    """Reads tensors one by one, as f32; files stay mapped, not loaded."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._files: dict[str, Path] = {}
        self._open: dict[Path, Any] = {}
        for path in weight_files(folder):
            try:
                # Kept open: opening parses the header again.
                file: Any = safe_open(path, framework="pt")
                self._open[path], names = file, list(file.keys())
            except (OSError, SafetensorError) as error:
                raise BadFormatError(f"{path}: damaged ({error}): copy it again") from None
            self._files |= dict.fromkeys(names, path)
        self._unread = set(self._files)

    def read(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """Raises BadFormatError where the tensor is missing, of another shape or no float."""
        path = self._files.get(name)
        if path is None:
            raise BadFormatError(f"{self.folder}: tensor {name} is missing: copy the checkpoint again")
        tensor: Tensor = self._open[path].get_tensor(name)
        if tuple(tensor.shape) != shape or tensor.dtype not in FLOATS:
            raise BadFormatError(
                f"{path}: {name} is {str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}, "
                f"config.json asks for a float {list(shape)}: copy the checkpoint again"
            )
        self._unread.discard(name)
        return tensor.to(torch.float32)

    def check_all_read(self, ignored: tuple[str, ...]) -> None:
        """Raises UnsupportedError for a tensor that the decoder has no place for; `ignored` are endings of names."""
        if odd := sorted(name for name in self._unread if not name.endswith(ignored)):
            raise UnsupportedError(
                f"{self._files[odd[0]]}: {odd[0]} has no place in an architecture of this config.json"
            )
