"""Writes Core ML packages (iOS 18): the KV cache as state, memory as fp16 inputs, one a level."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from edge_export.model import Decoder, attention, frequencies, visible
from edge_pretrain.model import memory_ffn

# Far below any score, and still finite in fp16.
HIDDEN = -3e4


class CoremlDecoder(nn.Module):
    """Appends T tokens to those in the cache; arguments as `forward` says.

    A level's rows are fixed: memory that is not fetched is given as zeros, which add nothing.
    """

    def __init__(self, decoder: Decoder, memory_layers: tuple[int, ...]) -> None:
        super().__init__()
        self.decoder, self.config = decoder, decoder.config
        self.slots = {layer: slot for slot, layer in enumerate(memory_layers)}
        config = decoder.config
        for layer in range(len(config.layers)):
            for kind in ("k", "v"):
                shape = (config.context_length, config.kv_heads, config.head_dim)
                self.register_buffer(f"{kind}_{layer}", torch.zeros(shape))
        for index, rope in enumerate(decoder.ropes):
            turns = frequencies(rope, config.head_dim)
            # As tables: angles of far positions are beyond fp16's precision.
            angles = torch.arange(config.context_length)[:, None] * torch.cat([turns, turns])
            self.register_buffer(f"cos_{index}", angles.cos()[:, None], persistent=False)
            self.register_buffer(f"sin_{index}", angles.sin()[:, None], persistent=False)

    def forward(self, tokens: Tensor, positions: Tensor, *memory: Tensor) -> Tensor:
        """Logits [1, vocab_size] of the last token.

        tokens: i32 [1, T]. positions: i32 [T], those of the tokens. memory: of each level [memory layers, 3, r, d].
        """
        config = self.config
        rotary = {
            rope: (getattr(self, f"cos_{index}")[positions], getattr(self, f"sin_{index}")[positions])
            for index, rope in enumerate(self.decoder.ropes)
        }
        keys = torch.arange(config.context_length, dtype=torch.int32)
        masks = {
            layer.window: visible(positions, keys, layer.window).clamp(min=HIDDEN) for layer in config.layers
        }

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            caches = []
            for kind, new in (("k", k), ("v", v)):
                cache = getattr(self, f"{kind}_{layer}")
                cache[positions] = new[0]
                caches.append(cache[None])
            mask = masks[config.layers[layer].window]
            return attention(q, caches[0], caches[1], mask, config.attention_scale)

        def read(layer: int, h: Tensor) -> Tensor | None:
            slot = self.slots.get(layer)
            if slot is None or not memory:
                return None
            added = memory_ffn(h, memory[0][slot : slot + 1])
            for level in memory[1:]:
                added = added + memory_ffn(h, level[slot : slot + 1])
            return added

        x = self.decoder.hidden(tokens, rotary, attend, read)
        return self.decoder.logits(x[:, -1])


def export_coreml(decoder: CoremlDecoder, rows: list[int], max_prefill: int, path: Path) -> None:
    """The package of an anchor; rows: r of each level that has memory."""
    import coremltools as ct

    config = decoder.config
    shapes = [(len(decoder.slots), 3, r, config.d_model) for r in rows]
    count = torch.export.Dim("tokens", min=1, max=max_prefill)
    examples = (torch.zeros(1, 4, dtype=torch.int32), torch.arange(4, dtype=torch.int32))
    with torch.no_grad():
        program = torch.export.export(
            decoder.eval(),
            (*examples, *(torch.zeros(shape) for shape in shapes)),
            dynamic_shapes={
                "tokens": {1: count},
                "positions": {0: count},
                "memory": tuple({} for _ in shapes),
            },
            strict=False,
        ).run_decompositions({})
    length = ct.RangeDim(1, max_prefill, default=1)
    inputs = [
        ct.TensorType("tokens", (1, length), dtype=np.int32),
        ct.TensorType("positions", (length,), dtype=np.int32),
        *(ct.TensorType(f"memory_{level}", shape, dtype=np.float16) for level, shape in enumerate(shapes)),
    ]
    model = ct.convert(
        program,
        inputs=inputs,
        outputs=[ct.TensorType("logits", dtype=np.float16)],
        minimum_deployment_target=ct.target.iOS18,
        skip_model_load=True,
    )
    model.save(str(path))
