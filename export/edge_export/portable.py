"""The portable flavour: memory is input tensors, one a level, and so is the KV cache; stock operators only."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edge_export.memory import InputMemory
from edge_export.model import Decoder, attention, frequencies, visible


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
        self, tokens: Tensor, caches: list[Tensor], memory: list[Tensor]
    ) -> tuple[Tensor, list[Tensor]]:
        """Logits f32 [1, vocab_size] of the last token, and what each cache gains, f32 [1, T, kv_heads, head_dim].

        tokens: i64 [1, T]. caches: keys, then values of each layer, f32 [1, P, kv_heads, head_dim].
        memory: of each level [memory layers, parts, r, width], f32 or f16; r = 0: none.
        """
        config, past = self.config, caches[0].shape[1]
        keys = torch.arange(past + tokens.shape[1])
        queries = keys[past:]
        rotary = {}
        for index, rope in enumerate(self.decoder.ropes):
            angles = (queries[:, None] * getattr(self, f"frequencies_{index}"))[:, None]
            rotary[rope] = angles.cos(), angles.sin()
        masks = {layer.window: visible(queries, keys, layer.window) for layer in config.layers}
        gained: list[Tensor] = []

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            gained.extend((k, v))
            k, v = (
                torch.cat([cache, new], dim=1)
                for cache, new in zip(caches[2 * layer : 2 * layer + 2], (k, v), strict=True)
            )
            return attention(q, k, v, masks[config.layers[layer].window], config.attention_scale)

        x = self.decoder.hidden(tokens, rotary, attend, self.memory.reader(memory))
        return self.decoder.logits(x[:, -1]), gained
