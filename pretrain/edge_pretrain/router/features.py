"""Texts as the rows that a static embedder adds up: tokens, and hashed n-grams behind them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor

from edge_runtime import _core


@dataclass(frozen=True)
class Features:
    """Ragged rows: those of text i are flat[offsets[i] : offsets[i + 1]]. An n-gram's row stands behind the tokens'."""

    flat: NDArray[np.int64]
    offsets: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def batch(self, indices: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """What torch's EmbeddingBag takes for these texts: rows i64 [n], the start of each text i64 [texts]."""
        starts, ends = self.offsets[indices], self.offsets[indices + 1]
        lengths = ends - starts
        begins = np.concatenate([[0], np.cumsum(lengths)[:-1]])
        rows = np.arange(lengths.sum()) + np.repeat(starts - begins, lengths)
        return torch.from_numpy(self.flat[rows]), torch.from_numpy(begins)


def features_of(tokenizer: Tokenizer, texts: Sequence[str], order: int, ngram_rows: int) -> Features:
    """The features of texts; `order` is the longest n-gram."""
    vocab_size = tokenizer.get_vocab_size()
    rows = []
    for encoding in tokenizer.encode_batch(list(texts), add_special_tokens=False):
        ids = np.array(encoding.ids, np.uint32)
        grams = [_core.ngram_buckets(ids, length, ngram_rows) + vocab_size for length in range(2, order + 1)]
        rows.append(np.concatenate([ids.astype(np.int64), *grams]))
    lengths = [len(row) for row in rows]
    flat = np.concatenate(rows) if rows else np.zeros(0, np.int64)
    return Features(flat, np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))
