"""What all memory types share, so that bank, optimiser and trainer know one shape only.

A block holds f32 [parts, r, width] a layer, whatever its type: r is the paper's size multiplier, and the blocks
of a path are read together by laying them side by side along r (more neurons, a higher rank, more keys).
"""

from abc import ABC, abstractmethod
from typing import Protocol

import torch
from torch import Tensor, nn


class Dimensions(Protocol):
    """What a memory's shape depends on; `edge_pretrain.model.AnchorConfig` has it."""

    @property
    def d_model(self) -> int: ...
    @property
    def heads(self) -> int: ...
    @property
    def head_dim(self) -> int: ...
    @property
    def ffn_dim(self) -> int: ...


class LayerMemory:
    """The memory of a batch in one layer: the points at which a layer asks for it. By itself it has no effect."""

    def project(self, name: str, x: Tensor, y: Tensor) -> Tensor:
        """The output of the matrix `name` (wq, wk, wv, wo, w1, w2 or w3), which made `y` of `x`."""
        return y

    def attend(self, queries: Tensor, scale: float) -> Tensor | None:
        """What is added to the heads' outputs. queries: [B, H, T, head_dim], without positions.

        scale: of their products with keys, the anchor's own; families have others than head_dim^-0.5.
        """
        return None

    def ffn(self, x: Tensor) -> Tensor | None:
        """What is added to the FFN's output. x: [B, T, d]."""
        return None


NO_MEMORY = LayerMemory()


class MemoryType(ABC):
    """One way of adding parameters to a layer. `parts` and `width` give the shape of a block.

    tensors: the names of the parts, in their order.
    """

    name: str
    tensors: tuple[str, ...]

    @property
    def parts(self) -> int:
        return len(self.tensors)

    @abstractmethod
    def width(self, anchor: Dimensions) -> int:
        """Values in each of the r rows of a part."""

    @abstractmethod
    def initialize(self, block: Tensor, anchor: Dimensions, generator: torch.Generator) -> None:
        """Fill zeros f32 [..., parts, r, width] so that the memory has no effect yet but can learn."""

    @abstractmethod
    def at(self, rows: Tensor) -> LayerMemory:
        """The memory of one layer. rows: [B or 1, parts, R, width]; 1 shares it across a batch."""

    def shape(self, anchor: Dimensions, rows: int) -> tuple[int, int, int]:
        """The shape of a block of size multiplier `rows` in one layer."""
        return self.parts, rows, self.width(anchor)


def truncated_normal(values: Tensor, std: float, generator: torch.Generator) -> None:
    """Normal values, cut at three standard deviations, in place."""
    nn.init.trunc_normal_(values, std=std, a=-3 * std, b=3 * std, generator=generator)
