"""FFN memory: r more inner neurons of a layer's SwiGLU; 3 r L d values (Pouransari et al. 2025, appendix I)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from edge_pretrain.memory_types.base import Dimensions, LayerMemory, MemoryType, truncated_normal


def memory_ffn(x: Tensor, rows: Tensor) -> Tensor:
    """W3^T (silu(W1 x) * (W2 x)), Pouransari et al. 2025, section 2 and appendix I.

    x: [B, T, d]; rows: [B or 1, 3, R, d]; returns [B, T, d].
    """
    if rows.shape[0] == 1 and x.shape[0] > 1:
        w1, w2, w3 = rows[0].unbind(0)
        return (F.silu(x @ w1.T) * (x @ w2.T)) @ w3
    w1, w2, w3 = rows.unbind(1)
    hidden = F.silu(x @ w1.transpose(1, 2)) * (x @ w2.transpose(1, 2))
    return hidden @ w3


class _FfnMemory(LayerMemory):
    def __init__(self, rows: Tensor) -> None:
        self.rows = rows

    def ffn(self, x: Tensor) -> Tensor:
        return memory_ffn(x, self.rows)


class _Ffn(MemoryType):
    """Parts: W1, W2 and W3 by rows."""

    name, tensors = "ffn", ("w1", "w2", "w3")

    def width(self, anchor: Dimensions) -> int:
        return anchor.d_model

    def initialize(self, block: Tensor, anchor: Dimensions, generator: torch.Generator) -> None:
        truncated_normal(block[..., :2, :, :], anchor.d_model**-0.5, generator)

    def at(self, rows: Tensor) -> LayerMemory:
        return _FfnMemory(rows)


FFN = _Ffn()
