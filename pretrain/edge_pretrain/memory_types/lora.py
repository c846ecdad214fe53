"""LoRA memories: W + alpha B A in some of a layer's matrices (Pouransari et al. 2025, appendix I).

The part of a matrix is r rows, each a row of A, [in], then a column of B, [out]: 2 r L (d + h dh) values for QK
and for VO, 3 r L (d + dff) for FFN. Where keys and values are shared by several heads, their columns are shorter and
the rest of a row is not read.
"""

import torch
from torch import Tensor, nn

from edge_pretrain.memory_types.base import Dimensions, LayerMemory, MemoryType

ALPHA = 2.0


class _LoraMemory(LayerMemory):
    def __init__(self, matrices: tuple[str, ...], rows: Tensor) -> None:
        self.rows = dict(zip(matrices, rows.unbind(1), strict=True))

    def project(self, name: str, x: Tensor, y: Tensor) -> Tensor:
        if name not in self.rows:
            return y
        inner, outer = x.shape[-1], y.shape[-1]
        a, b = self.rows[name][..., :inner], self.rows[name][..., inner : inner + outer]
        added: Tensor = x @ a.transpose(1, 2) @ b
        return y + ALPHA * added


class _Lora(MemoryType):
    def __init__(self, name: str, matrices: tuple[str, ...]) -> None:
        self.name, self.tensors = name, matrices

    def _fan_in(self, anchor: Dimensions, matrix: str) -> int:
        return {"wo": anchor.heads * anchor.head_dim, "w3": anchor.ffn_dim}.get(matrix, anchor.d_model)

    def width(self, anchor: Dimensions) -> int:
        inner = anchor.ffn_dim if "w1" in self.tensors else anchor.heads * anchor.head_dim
        return anchor.d_model + inner

    def initialize(self, block: Tensor, anchor: Dimensions, generator: torch.Generator) -> None:
        for part, matrix in enumerate(self.tensors):
            fan_in = self._fan_in(anchor, matrix)
            # Kaiming uniform with a = sqrt(5), as LoRA has it; B stays zero.
            nn.init.uniform_(block[..., part, :, :fan_in], -(fan_in**-0.5), fan_in**-0.5, generator=generator)

    def at(self, rows: Tensor) -> LayerMemory:
        return _LoraMemory(self.tensors, rows)


LORA_QK = _Lora("lora_qk", ("wq", "wk"))
LORA_VO = _Lora("lora_vo", ("wv", "wo"))
LORA_FFN = _Lora("lora_ffn", ("w1", "w2", "w3"))
