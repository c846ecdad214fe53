"""The tensors of a Hugging Face folder: safetensors, whole or in shards, never pickles."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from edge_pretrain.hf_folder import weight_files
from edge_runtime.errors import BadFormatError, UnsupportedError

FLOATS = (torch.float32, torch.float16, torch.bfloat16)


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
