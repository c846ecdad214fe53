"""KV memory: r learned keys and values a layer and head that all queries attend to; 2 r L h dh values.

Pouransari et al. 2025, appendix I: a softmax of its own, no causal mask, no positions; the result is added to
the heads' outputs.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from edge_pretrain.memory_types.base import Dimensions, LayerMemory, MemoryType, truncated_normal


class _KvMemory(LayerMemory):
    def __init__(self, rows: Tensor) -> None:
        self.keys, self.values = rows.unbind(1)

    def attend(self, queries: Tensor, scale: float) -> Tensor:
        heads, head_dim = queries.shape[1], queries.shape[3]
        keys, values = (
            rows.unflatten(-1, (heads, head_dim)).transpose(1, 2).expand(len(queries), -1, -1, -1)
            for rows in (self.keys, self.values)
        )
        return F.scaled_dot_product_attention(queries, keys, values, scale=scale)


class _Kv(MemoryType):
    """A row holds the keys, or the values, of all heads."""

    name, tensors = "kv", ("keys", "values")

    def width(self, anchor: Dimensions) -> int:
        return anchor.heads * anchor.head_dim

    def initialize(self, block: Tensor, anchor: Dimensions, generator: torch.Generator) -> None:
        # The anchor's keys are normalised to variance 1, and so are these. Values stay zero.
        truncated_normal(block[..., 0, :, :], 1.0, generator)

    def at(self, rows: Tensor) -> LayerMemory:
        return _KvMemory(rows)


KV = _Kv()
