"""The anchor as an ExecuTorch program with a KV cache: one call appends T tokens and gives the logits of the last.

The attention is ExecuTorch's fused one (`llama::update_cache`, `llama::custom_sdpa`): it reads the cache in place,
where indexing a cache buffer would copy it. Layers that carry memory read it (Pouransari et al. 2025, section 2): the
paged flavour FFN memory by `edge::memory_ffn`, the portable one any memory by stock operators over its inputs.
"""

from __future__ import annotations

from typing import cast

import executorch.extension.llm.custom_ops.custom_ops  # noqa: F401  # registers llama::*
import torch
from torch import Tensor, nn

from edge_export import ops  # noqa: F401  # registers edge::memory_ffn
from edge_export.memory import InputMemory, Memory
from edge_export.model import Decoder, rotary_tables, visible
from edge_pretrain.memory_types import NO_MEMORY, LayerMemory


class CachedDecoder(nn.Module):
    """What the flavours share.

    Args:
        decoder: shared, not copied.
    """

    def __init__(self, decoder: Decoder) -> None:
        super().__init__()
        config = decoder.config
        self.decoder, self.config = decoder, config
        shape = (1, config.context_length, config.kv_heads, config.head_dim)
        for layer in range(len(config.layers)):
            for name in ("k", "v"):
                self.register_buffer(f"{name}_cache_{layer}", torch.zeros(shape), persistent=False)
        for index, rope in enumerate(decoder.ropes):
            cos, sin = rotary_tables(rope, config.head_dim, config.context_length)
            self.register_buffer(f"cos_{index}", cos, persistent=False)
            self.register_buffer(f"sin_{index}", sin, persistent=False)
        self.positions: Tensor
        self.register_buffer("positions", torch.arange(config.context_length), persistent=False)

    def run(self, tokens: Tensor, position: Tensor, read: Memory) -> Tensor:
        """f32 [1, vocab_size]. tokens: i64 [1, T]. position: i64 [1], the tokens already in the cache."""
        config, length = self.config, tokens.shape[1]
        start = cast(int, position.item())
        torch._check(start >= 0)
        torch._check(start + length <= config.context_length)
        rotary = {
            rope: (
                getattr(self, f"cos_{index}").narrow(0, start, length),
                getattr(self, f"sin_{index}").narrow(0, start, length),
            )
            for index, rope in enumerate(self.decoder.ropes)
        }
        # The fused attention knows causal masks; a window's is spelt out, once for all layers that share it.
        windows = {layer.window for layer in config.layers if layer.window is not None}
        queries = self.positions.narrow(0, start, length)
        masks = {window: visible(queries, self.positions, window) for window in windows}

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            keys, values = getattr(self, f"k_cache_{layer}"), getattr(self, f"v_cache_{layer}")
            torch.ops.llama.update_cache(k, keys, start)
            torch.ops.llama.update_cache(v, values, start)
            window = config.layers[layer].window
            mask = None if window is None else masks[window]
            fused = torch.ops.llama.custom_sdpa
            return cast(
                Tensor, fused(q, keys, values, start, mask, 0.0, mask is None, config.attention_scale)
            )

        x = self.decoder.hidden(tokens, rotary, attend, read)
        return self.decoder.logits(x[:, -1])


class _HandleMemory(LayerMemory):
    """FFN memory of one layer, read where the lease has it."""

    def __init__(self, handle: Tensor, slot: int) -> None:
        self._handle, self._slot = handle, slot

    def ffn(self, x: Tensor) -> Tensor:
        return cast(Tensor, torch.ops.edge.memory_ffn(x, self._handle, self._slot))


class PagedDecoder(CachedDecoder):
    """The paged flavour: FFN memory is read through a handle, in place (docs/bundle-format.md, Programs).

    Args:
        decoder: shared, not copied.
        memory_layers: the anchor's layers that carry memory, ascending.
    """

    def __init__(self, decoder: Decoder, memory_layers: tuple[int, ...]) -> None:
        super().__init__(decoder)
        self.slots = {layer: slot for slot, layer in enumerate(memory_layers)}

    def forward(self, tokens: Tensor, position: Tensor, memory: Tensor) -> Tensor:
        """As `run`. memory: i64 [1], a handle, 0: none."""

        def read(layer: int) -> LayerMemory:
            slot = self.slots.get(layer)
            return NO_MEMORY if slot is None else _HandleMemory(memory, slot)

        return self.run(tokens, position, read)


class PortableCachedDecoder(CachedDecoder):
    """The portable flavour: memory is inputs, one a level, of fixed rows; zeros stand for what is not fetched.

    Args:
        decoder: shared, not copied.
        memory: what it is given.
    """

    def __init__(self, decoder: Decoder, memory: InputMemory) -> None:
        super().__init__(decoder)
        self.memory = memory

    def forward(self, tokens: Tensor, position: Tensor, *memory: Tensor) -> Tensor:
        """As `run`. memory: of each level f32 [memory layers, parts, r, width]; behind those of KV memory f32 [levels],
        1 where the level is fetched, else 0."""
        there = None
        if self.memory.kind == "kv":
            *levels, there = memory
        else:
            levels = list(memory)
        return self.run(tokens, position, self.memory.reader(levels, there))
