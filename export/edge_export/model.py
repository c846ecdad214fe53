"""The decoder of every anchor, whatever its family: the options of `DecoderConfig` say where families differ.

A program brings its own attention over its own cache, and its own way to memory; so one decoder serves them all.
`Decoder.forward` is the reference that programs are compared with.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edge_export.architecture import DecoderConfig, LayerOptions, Rope
from edge_export.memory import Memory
from edge_pretrain.memory_types import NO_MEMORY, LayerMemory
from edge_pretrain.model import MemoryRows

Rotary = dict[Rope, tuple[Tensor, Tensor]]
"""cos and sin of a call's tokens, f32 [T, 1, head_dim] each."""
Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]
"""(layer, q [B, T, heads, head_dim], k and v [B, T, kv_heads, head_dim]) -> [B, T, heads, head_dim]."""


class RmsNorm(nn.Module):
    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.eps) * self.weight


class GainNorm(nn.Module):
    """LayerNorm with a gain and no bias."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, self.weight.shape, self.weight, None, self.eps)


def _norm(config: DecoderConfig, width: int) -> nn.Module:
    return (RmsNorm if config.norm == "rmsnorm" else GainNorm)(width, config.norm_eps)


def frequencies(rope: Rope, head_dim: int) -> Tensor:
    """Radians a token of each pair of a head's values, f32 [head_dim / 2]."""
    found = rope.theta ** (-torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim)
    if rope.scaling == "linear":
        return found / rope.factor
    if rope.scaling == "llama3":
        turns = rope.original_context * found / (2 * math.pi)
        kept = ((turns - rope.low) / (rope.high - rope.low)).clamp(0, 1)
        return found * (kept + (1 - kept) / rope.factor)
    return found


def rotary_tables(rope: Rope, head_dim: int, length: int) -> tuple[Tensor, Tensor]:
    """cos and sin, f32 [length, 1, head_dim] each (rotate-half: both halves alike)."""
    angles = torch.arange(length, dtype=torch.float32)[:, None] * frequencies(rope, head_dim)
    angles = torch.cat([angles, angles], dim=-1)[:, None]
    return angles.cos(), angles.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-second, first], dim=-1) * sin


def gelu_tanh(x: Tensor) -> Tensor:
    """Spelt out: executorch 1.4.1 lowers F.gelu to XNNPACK's without regard to `approximate`, 5e-4 away."""
    return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)))


def softcapped(x: Tensor, cap: float | None) -> Tensor:
    return x if cap is None else cap * torch.tanh(x / cap)


def visible(queries: Tensor, keys: Tensor, window: int | None, hidden: float = -math.inf) -> Tensor:
    """f32 [Q, K], added to scores: 0 where the query at one position sees the key at another, else `hidden`."""
    distance = queries[:, None] - keys[None]
    seen = distance >= 0
    if window is not None:
        seen = torch.logical_and(seen, distance < window)
    return torch.where(seen, 0.0, hidden)


def attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, scale: float) -> Tensor:
    """Plain attention. q: [B, T, heads, head_dim]; k, v: [B, K, kv_heads, head_dim]; mask: [T, K]."""
    group = q.shape[2] // k.shape[2]
    # Heads of a group lie side by side, so that they share one product with their key head.
    q = q.unflatten(2, (k.shape[2], group)).permute(0, 2, 3, 1, 4)
    k, v = k.permute(0, 2, 3, 1)[:, :, None], v.transpose(1, 2)[:, :, None]
    return (((q * scale) @ k + mask).softmax(-1) @ v).permute(0, 3, 1, 2, 4).flatten(2, 3)


class Attention(nn.Module):
    """Queries, keys and values are one product: every product is a delegate of its own, so fewer of them take less
    time to lower and to run. Rows of a weight have scales of their own, so that quantisation is not touched by that.
    """

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.widths = [config.heads * config.head_dim] + 2 * [config.kv_heads * config.head_dim]
        self.head_dim, self.per_head = config.head_dim, config.qk_norm == "head"
        self.scale = config.attention_scale
        self.qkv = nn.Linear(config.d_model, sum(self.widths), bias=config.qkv_bias)
        self.wo = nn.Linear(self.widths[0], config.d_model, bias=config.output_bias)
        if config.qk_norm != "none":
            self.q_norm, self.k_norm = (
                _norm(config, self.head_dim if self.per_head else width) for width in self.widths[:2]
            )
        else:
            self.q_norm, self.k_norm = nn.Identity(), nn.Identity()

    def forward(
        self,
        x: Tensor,
        rotary: tuple[Tensor, Tensor] | None,
        layer: int,
        attend: Attend,
        memory: LayerMemory,
    ) -> Tensor:
        q, k, v = (
            memory.project(name, x, part)
            for name, part in zip(("wq", "wk", "wv"), self.qkv(x).split(self.widths, dim=-1), strict=True)
        )
        if not self.per_head:
            q, k = self.q_norm(q), self.k_norm(k)
        q, k, v = (t.unflatten(-1, (-1, self.head_dim)) for t in (q, k, v))
        if self.per_head:
            q, k = self.q_norm(q), self.k_norm(k)
        remembered = memory.attend(q.transpose(1, 2), self.scale)
        if rotary is not None:
            q, k = rotate(q, *rotary), rotate(k, *rotary)
        y = attend(layer, q, k, v)
        if remembered is not None:
            y = y + remembered.transpose(1, 2)
        y = y.flatten(2)
        return memory.project("wo", y, self.wo(y))


class FeedForward(nn.Module):
    """W1 (the gate's) and W2 are one product, as in `Attention`."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.w12 = nn.Linear(config.d_model, 2 * config.ffn_dim, bias=config.ffn_bias)
        self.w3 = nn.Linear(config.ffn_dim, config.d_model, bias=config.ffn_bias)
        self.gelu = config.activation == "gelu_tanh"

    def forward(self, x: Tensor, memory: LayerMemory) -> Tensor:
        gate, up = self.w12(x).chunk(2, dim=-1)
        gate, up = memory.project("w1", x, gate), memory.project("w2", x, up)
        hidden = (gelu_tanh(gate) if self.gelu else F.silu(gate)) * up
        return memory.project("w3", hidden, self.w3(hidden))


class Block(nn.Module):
    def __init__(self, config: DecoderConfig, options: LayerOptions) -> None:
        super().__init__()

        def norm(there: bool) -> nn.Module:
            return _norm(config, config.d_model) if there else nn.Identity()

        self.options = options
        self.attention_norm, self.attention_post_norm = norm(config.pre_norm), norm(config.post_norm)
        self.ffn_norm, self.ffn_post_norm = norm(config.pre_norm), norm(config.post_norm)
        self.attention, self.feed_forward = Attention(config), FeedForward(config)

    def forward(self, x: Tensor, rotary: Rotary, layer: int, attend: Attend, memory: Memory) -> Tensor:
        turn = None if self.options.rope is None else rotary[self.options.rope]
        found = memory(layer)
        x = x + self.attention_post_norm(self.attention(self.attention_norm(x), turn, layer, attend, found))
        h = self.ffn_norm(x)
        y, added = self.feed_forward(h, found), found.ffn(h)
        return cast(Tensor, x + self.ffn_post_norm(y if added is None else y + added))


class Decoder(nn.Module):
    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        self.tok_embeddings: nn.Module = nn.Embedding(config.vocab_size, config.d_model)
        self.blocks = nn.ModuleList(Block(config, options) for options in config.layers)
        self.norm = _norm(config, config.d_model)
        self.output = nn.Linear(config.d_model, config.vocab_size, bias=False)
        if config.tied_embeddings:
            self.output.weight = cast(nn.Parameter, self.tok_embeddings.weight)

    @property
    def ropes(self) -> list[Rope]:
        """The distinct ones of its layers."""
        return list(dict.fromkeys(layer.rope for layer in self.config.layers if layer.rope is not None))

    def hidden(self, tokens: Tensor, rotary: Rotary, attend: Attend, memory: Memory) -> Tensor:
        """[B, T, d] before the last norm. tokens: i64 [B, T]."""
        x = self.tok_embeddings(tokens)
        if self.config.embedding_scale != 1.0:
            x = x * self.config.embedding_scale
        for layer, block in enumerate(self.blocks):
            x = block(x, rotary, layer, attend, memory)
        return cast(Tensor, x)

    def logits(self, x: Tensor) -> Tensor:
        return softcapped(self.output(self.norm(x)), self.config.logit_softcap)

    def forward(self, tokens: Tensor, memory: MemoryRows | None = None) -> Tensor:
        """The reference: logits f32 [B, T, vocab_size] of every next token, without a cache."""
        config, positions = self.config, torch.arange(tokens.shape[1])
        rotary = {rope: rotary_tables(rope, config.head_dim, len(positions)) for rope in self.ropes}

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            mask = visible(positions, positions, config.layers[layer].window)
            return attention(q, k, v, mask, config.attention_scale)

        memories = {} if memory is None else memory.by_layer()
        x = self.hidden(tokens, rotary, attend, lambda layer: memories.get(layer, NO_MEMORY))
        return self.logits(x)


def stacked(parts: Sequence[Tensor]) -> nn.Parameter:
    """The weights of several products, or their biases, as those of one."""
    return nn.Parameter(torch.cat(list(parts)), requires_grad=False)
