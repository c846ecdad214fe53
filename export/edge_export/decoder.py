"""The anchor as a program with a KV cache: one call appends T tokens and gives the logits of the last.

The attention is ExecuTorch's fused one (`llama::update_cache`, `llama::custom_sdpa`): it reads the cache in place,
where indexing a cache buffer would copy it. FFN layers that carry memory add `edge::memory_ffn`
(Pouransari et al. 2025, section 2).
"""

from __future__ import annotations

from typing import cast

import executorch.extension.llm.custom_ops.custom_ops  # noqa: F401  # registers llama::*
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edge_export import ops  # noqa: F401  # registers edge::memory_ffn
from edge_pretrain.model import Anchor, Attention, Block, FeedForward, rotary_tables


class CachedAttention(nn.Module):
    """`Attention` of the anchor over a KV cache of f32 [1, context_length, heads, head_dim] each.

    Queries, keys and values are one product: every product is a delegate of its own, so fewer of them take less time
    to lower and to run. Rows of a weight have scales of their own, so that quantisation is not touched by that.
    """

    def __init__(self, attention: Attention, context_length: int) -> None:
        super().__init__()
        self.qkv = stacked(attention.wq, attention.wk, attention.wv)
        self.wo = attention.wo
        self.q_norm, self.k_norm = attention.q_norm, attention.k_norm
        self.heads, self.head_dim = attention.heads, attention.head_dim
        shape = (1, context_length, self.heads, self.head_dim)
        self.k_cache: Tensor
        self.v_cache: Tensor
        self.register_buffer("k_cache", torch.zeros(shape), persistent=False)
        self.register_buffer("v_cache", torch.zeros(shape), persistent=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, position: int) -> Tensor:
        """x: [1, T, d]; cos, sin: [T, 1, head_dim]; position: tokens already in the cache."""
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        q, k = self.q_norm(q), self.k_norm(k)
        q, k, v = (t.unflatten(-1, (self.heads, self.head_dim)) for t in (q, k, v))
        q, k = _rotate(q, cos, sin), _rotate(k, cos, sin)
        torch.ops.llama.update_cache(k, self.k_cache, position)
        torch.ops.llama.update_cache(v, self.v_cache, position)
        y = torch.ops.llama.custom_sdpa(q, self.k_cache, self.v_cache, position, None, 0.0, True)
        return cast(Tensor, self.wo(y.flatten(2)))


class FusedFeedForward(nn.Module):
    """`FeedForward` of the anchor with W1 and W2 as one product."""

    def __init__(self, feed_forward: FeedForward) -> None:
        super().__init__()
        self.w12 = stacked(feed_forward.w1, feed_forward.w2)
        self.w3 = feed_forward.w3

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.w12(x).chunk(2, dim=-1)
        return cast(Tensor, self.w3(F.silu(gate) * up))


class CachedBlock(nn.Module):
    """`Block` of the anchor with a KV cache; `slot` counts the layers that carry memory, None: this one does not."""

    def __init__(self, block: Block, context_length: int, slot: int | None) -> None:
        super().__init__()
        self.attention_norm, self.ffn_norm = block.attention_norm, block.ffn_norm
        self.attention = CachedAttention(block.attention, context_length)
        self.feed_forward = FusedFeedForward(block.feed_forward)
        self.slot = slot

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, position: int, memory: Tensor) -> Tensor:
        x = x + self.attention(self.attention_norm(x), cos, sin, position)
        h = self.ffn_norm(x)
        x = x + self.feed_forward(h)
        return x if self.slot is None else x + torch.ops.edge.memory_ffn(h, memory, self.slot)


def stacked(*linears: nn.Linear) -> nn.Linear:
    """One product that gives the outputs of several, side by side."""
    weight = torch.cat([linear.weight.detach() for linear in linears])
    with torch.device("meta"):
        joined = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    joined.weight = nn.Parameter(weight, requires_grad=False)
    return joined


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions in the rotate-half layout. x: [1, T, heads, head_dim]."""
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-second, first], dim=-1) * sin


class PagedDecoder(nn.Module):
    """The paged flavour: memory is read through a handle, in place (docs/bundle-format.md, Programs).

    Args:
        anchor: its norms, embedding and output are shared, not copied.
        memory_layers: the anchor's layers that carry memory, ascending.
    """

    def __init__(self, anchor: Anchor, memory_layers: tuple[int, ...]) -> None:
        super().__init__()
        config = anchor.config
        self.tok_embeddings: nn.Module = anchor.tok_embeddings
        self.norm = anchor.norm
        self.context_length = config.context_length
        slots = {layer: slot for slot, layer in enumerate(memory_layers)}
        self.blocks = nn.ModuleList(
            CachedBlock(cast(Block, block), config.context_length, slots.get(layer))
            for layer, block in enumerate(anchor.layers)
        )
        with torch.device("meta"):
            self.output = nn.Linear(config.d_model, config.vocab_size, bias=False)
        self.output.weight = cast(nn.Parameter, anchor.output_weight)
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
        for block in self.blocks:
            x = block(x, cos, sin, start, memory)
        return cast(Tensor, self.output(self.norm(x[:, -1])))
