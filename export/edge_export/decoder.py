"""The anchor as a program with a KV cache: one call appends T tokens and gives the logits of the last.

The attention is ExecuTorch's fused one (`llama::update_cache`, `llama::custom_sdpa`): it reads the cache in place,
where indexing a cache buffer would copy it. FFN layers that carry memory add `edge::memory_ffn`
(Pouransari et al. 2025, section 2).
"""

from __future__ import annotations

from typing import cast

import executorch.extension.llm.custom_ops.custom_ops  # noqa: F401  # registers llama::*
import torch
from torch import Tensor, nn

from edge_export import ops  # noqa: F401  # registers edge::memory_ffn
from edge_pretrain.model import Anchor, Attention, Block, rotary_tables


class CachedAttention(nn.Module):
    """`Attention` of the anchor over a KV cache of f32 [1, context_length, heads, head_dim] each."""

    def __init__(self, attention: Attention, context_length: int) -> None:
        super().__init__()
        self.wq, self.wk, self.wv, self.wo = attention.wq, attention.wk, attention.wv, attention.wo
        self.q_norm, self.k_norm = attention.q_norm, attention.k_norm
        self.heads, self.head_dim = attention.heads, attention.head_dim
        shape = (1, context_length, self.heads, self.head_dim)
        self.k_cache: Tensor
        self.v_cache: Tensor
        self.register_buffer("k_cache", torch.zeros(shape), persistent=False)
        self.register_buffer("v_cache", torch.zeros(shape), persistent=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, position: int) -> Tensor:
        """x: [1, T, d]; cos, sin: [T, 1, head_dim]; position: tokens already in the cache."""
        q, k, v = self.q_norm(self.wq(x)), self.k_norm(self.wk(x)), self.wv(x)
        q, k, v = (t.unflatten(-1, (self.heads, self.head_dim)) for t in (q, k, v))
        q, k = _rotate(q, cos, sin), _rotate(k, cos, sin)
        torch.ops.llama.update_cache(k, self.k_cache, position)
        torch.ops.llama.update_cache(v, self.v_cache, position)
        y = torch.ops.llama.custom_sdpa(q, self.k_cache, self.v_cache, position, None, 0.0, True)
        return cast(Tensor, self.wo(y.flatten(2)))


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions in the rotate-half layout. x: [1, T, heads, head_dim]."""
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-second, first], dim=-1) * sin


class PagedDecoder(nn.Module):
    """The paged flavour: memory is read through a handle, in place (docs/bundle-format.md, Programs).

    Args:
        anchor: its weights are shared, not copied.
        memory_layers: the anchor's layers that carry memory, ascending.
    """

    def __init__(self, anchor: Anchor, memory_layers: tuple[int, ...]) -> None:
        super().__init__()
        config = anchor.config
        self.tok_embeddings, self.norm = anchor.tok_embeddings, anchor.norm
        self.context_length = config.context_length
        self.blocks = nn.ModuleList(anchor.layers)
        self.attentions = nn.ModuleList(
            CachedAttention(cast(Block, block).attention, config.context_length) for block in anchor.layers
        )
        self.output = nn.Linear(config.d_model, config.vocab_size, bias=False)
        self.output.weight = cast(nn.Parameter, anchor.output_weight)
        self.slots = {layer: slot for slot, layer in enumerate(memory_layers)}
        self.cos: Tensor
        self.sin: Tensor
        cos, sin = rotary_tables(config, config.context_length, torch.device("cpu"))
        self.register_buffer("cos", cos[:, None], persistent=False)
        self.register_buffer("sin", sin[:, None], persistent=False)

    def forward(self, tokens: Tensor, position: Tensor, memory: Tensor) -> Tensor:
        """f32 [1, vocab_size].

        tokens: i64 [1, T]. position: i64 [1], the tokens already in the cache. memory: i64 [1], a handle, 0: none.
        """
        length, start = tokens.shape[1], cast(int, position.item())
        torch._check(start >= 0)
        torch._check(start + length <= self.context_length)
        cos, sin = self.cos.narrow(0, start, length), self.sin.narrow(0, start, length)
        x = self.tok_embeddings(tokens)
        for index, (module, attention) in enumerate(zip(self.blocks, self.attentions, strict=True)):
            block = cast(Block, module)
            x = x + attention(block.attention_norm(x), cos, sin, start)
            h = block.ffn_norm(x)
            x = x + block.feed_forward(h)
            if index in self.slots:
                x = x + torch.ops.edge.memory_ffn(h, memory, self.slots[index])
        return cast(Tensor, self.output(self.norm(x[:, -1])))
