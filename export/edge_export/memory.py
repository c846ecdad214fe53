"""Memory of every type in a program (Pouransari et al. 2025, appendix I): levels are inputs of their own, never laid
side by side, since that would copy them at every call."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from edge_pretrain.memory_types import NO_MEMORY, TYPES, LayerMemory

Memory = Callable[[int], LayerMemory]
"""Of a layer: what it reads, `NO_MEMORY` where it carries none."""
# Added to the scores of keys that are not there: far below any score, and still finite in fp16.
HIDDEN = -3e4


class LevelMemory(LayerMemory):
    """The memory of one layer.

    rows: of each level f32 [1, parts, r, width]. there: f32 [levels], 0 where a level's rows are zeros in the place of
    a block that is not fetched; None: all are blocks, or r is 0. KV memory alone needs it: a key of zeros is a key.
    """

    def __init__(self, kind: str, rows: Sequence[Tensor], there: Tensor | None = None) -> None:
        self._kind, self._rows, self._there = kind, rows, there
        self._levels = [TYPES[kind].at(level) for level in rows]

    def project(self, name: str, x: Tensor, y: Tensor) -> Tensor:
        for level in self._levels:
            y = level.project(name, x, y)
        return y

    def attend(self, queries: Tensor, scale: float) -> Tensor | None:
        """One softmax over the keys of all levels."""
        if self._kind != "kv":
            return None
        heads, head_dim = queries.shape[1], queries.shape[3]
        scores: list[Tensor] = []
        values: list[Tensor] = []
        for index, rows in enumerate(self._rows):
            keys, found = (part.unflatten(-1, (heads, head_dim)).transpose(1, 2) for part in rows.unbind(1))
            score = (queries * scale) @ keys.transpose(2, 3)
            scores.append(score if self._there is None else score + (1 - self._there[index]) * HIDDEN)
            values.append(found)
        # A key without a value takes what is left: nothing, unless there are no others.
        scores.append(torch.full_like(queries[..., :1], HIDDEN))
        weights = torch.cat(scores, dim=-1).softmax(-1)
        shares = weights.split([*(level.shape[2] for level in values), 1], dim=-1)[:-1]
        added = torch.zeros_like(queries)
        for share, value in zip(shares, values, strict=True):
            added = added + share @ value
        return added

    def ffn(self, x: Tensor) -> Tensor | None:
        added: Tensor | None = None
        for level in self._levels:
            one = level.ffn(x)
            if one is not None:
                added = one if added is None else added + one
        return added


class InputMemory:
    """The memory inputs of a portable program, layer by layer.

    kind: of `edge_pretrain.memory_types.TYPES`. layers: the anchor's that carry memory, ascending.
    """

    def __init__(self, kind: str, layers: tuple[int, ...]) -> None:
        self.kind, self.layers = kind, layers
        self._slots = {layer: slot for slot, layer in enumerate(layers)}

    def reader(self, memory: Sequence[Tensor], there: Tensor | None = None) -> Memory:
        """memory: of each level [memory layers, parts, r, width], f32 or f16. there: as `LevelMemory`."""

        def read(layer: int) -> LayerMemory:
            slot = self._slots.get(layer)
            if slot is None or not memory:
                return NO_MEMORY
            rows = [level[slot : slot + 1].to(torch.float32) for level in memory]
            return LevelMemory(self.kind, rows, there)

        return read
