"""The portable flavour for ONNX Runtime: memory is input tensors, one a level, and so is the KV cache, which the caller
owns and the program appends to in place; operators of the stock runtime only."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edge_export.cached_attention import cached_attention
from edge_export.memory import InputMemory
from edge_export.model import Decoder, frequencies


class PortableDecoder(nn.Module):
    """Appends T tokens to P that are in the cache.

    Args:
        decoder: shared, not copied.
        memory: what it is given.
    """

    def __init__(self, decoder: Decoder, memory: InputMemory) -> None:
        super().__init__()
        self.decoder, self.config, self.memory = decoder, decoder.config, memory
        for index, rope in enumerate(decoder.ropes):
            turns = frequencies(rope, decoder.config.head_dim)
            self.register_buffer(f"frequencies_{index}", torch.cat([turns, turns]), persistent=False)

    def forward(
        self, tokens: Tensor, position: Tensor, caches: list[Tensor], memory: list[Tensor]
    ) -> tuple[Tensor, list[Tensor]]:
        """Logits f32 [1, vocab_size] of the last token, and the caches with the tokens' keys and values.

        tokens: i64 [1, T]. position: i64 [1], P. caches: keys, then values of each layer, f32 [1, kv_heads,
        context_length, head_dim], of which the first P count. memory: of each level [memory layers, parts, r, width],
        f32 or f16; r = 0: none.
        """
        config = self.config
        positions = position + torch.arange(tokens.shape[1])
        rotary = {}
        for index, rope in enumerate(self.decoder.ropes):
            angles = (positions[:, None] * getattr(self, f"frequencies_{index}"))[:, None]
            rotary[rope] = angles.cos(), angles.sin()
        last = positions[-1:].to(torch.int32)
        appended: list[Tensor] = []

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            keys, values = caches[2 * layer : 2 * layer + 2]
            window, scale = config.layers[layer].window, config.attention_scale
            y, keys, values = cached_attention(q, k, v, keys, values, last, window, scale)
            appended.extend((keys, values))
            return y

        x = self.decoder.hidden(tokens, rotary, attend, self.memory.reader(memory))
        return self.decoder.logits(x[:, -1]), appended
