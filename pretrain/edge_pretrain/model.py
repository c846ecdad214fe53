"""The anchor: an OpenLM-style decoder whose layers read memory rows (Pouransari et al. 2025, section 2).

Pre-norm blocks, LayerNorm with a gain only, the same LayerNorm on queries and keys over the width of all
heads (QK-norm), RoPE in the rotate-half layout, causal attention, SwiGLU. This file is the reference that
exported programs are compared with.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass, replace
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edge_pretrain.memory_types import FFN, NO_MEMORY, LayerMemory, MemoryType, memory_ffn

__all__ = ["PAPER_ANCHORS", "Anchor", "AnchorConfig", "MemoryReader", "MemoryRows", "memory_ffn"]


@dataclass(frozen=True)
class AnchorConfig:
    """Dimensions and options of an anchor; `context_length` is in tokens."""

    layers: int
    d_model: int
    heads: int
    head_dim: int
    ffn_dim: int
    vocab_size: int
    context_length: int
    tied_embeddings: bool = True
    rope_theta: float = 100_000.0
    norm_eps: float = 1e-5

    def __post_init__(self) -> None:
        if self.head_dim % 2:
            raise ValueError(f"anchor: head_dim must be even for rotary positions, got {self.head_dim}")

    @property
    def parameters(self) -> int:
        """The number of trained parameters."""
        attention = 4 * self.d_model * self.heads * self.head_dim + 2 * self.heads * self.head_dim
        ffn = 3 * self.d_model * self.ffn_dim
        embeddings = self.vocab_size * self.d_model * (1 if self.tied_embeddings else 2)
        return self.layers * (attention + ffn + 2 * self.d_model) + self.d_model + embeddings

    def to_manifest(self) -> dict[str, Any]:
        """The manifest's `anchor` object (docs/bundle-format.md)."""
        return asdict(self) | {
            "architecture": "openlm",
            "parameters": self.parameters,
            "kv_heads": self.heads,
            "norm": "layernorm",
            "activation": "silu",
            "qk_norm": True,
        }

    @classmethod
    def from_manifest(cls, anchor: dict[str, Any]) -> "AnchorConfig":
        """The inverse of `to_manifest`. Raises ValueError for another architecture."""
        config = cls(**{name: anchor[name] for name in cls.__dataclass_fields__})
        for key, value in config.to_manifest().items():
            if anchor.get(key) != value:
                raise ValueError(f"anchor: {key} must be {value!r}, got {anchor.get(key)!r}")
        return config


# The paper's anchors (section 3); the vocabulary is GPT-NeoX's, padded.
PAPER_ANCHORS = {
    "160M": AnchorConfig(35, 512, 12, 32, 2048, 50_432, 8192),
    "410M": AnchorConfig(24, 1024, 16, 64, 2816, 50_432, 8192, tied_embeddings=False),
    "1.4B": AnchorConfig(24, 2048, 16, 128, 5632, 50_432, 8192, tied_embeddings=False),
}


@dataclass(frozen=True)
class MemoryRows:
    """The fetched memory of a batch.

    rows: f32 [B, len(layers), parts, R, width], the rows of all fetched levels side by side (of FFN memory:
    [B, len(layers), 3, R, d], those of W1, W2 and W3); B may be 1 to share one memory across a batch.
    layers: the anchor's layers that carry them, ascending.
    """

    rows: Tensor
    layers: tuple[int, ...]
    kind: MemoryType = FFN

    def to(self, device: str) -> "MemoryRows":
        """The same rows on a device."""
        return replace(self, rows=self.rows.to(device))

    def by_layer(self) -> dict[int, LayerMemory]:
        """The memory of each layer that carries one."""
        # Unbound at once: the gradient of rows[:, slot] would be as large as all rows, for each layer.
        return {
            layer: self.kind.at(rows) for layer, rows in zip(self.layers, self.rows.unbind(1), strict=True)
        }


def rotary_tables(config: AnchorConfig, length: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """cos and sin of the rotary angles, f32 [length, head_dim] each (rotate-half: both halves alike)."""
    half = torch.arange(0, config.head_dim, 2, dtype=torch.float32, device=device)
    frequencies = config.rope_theta ** (-half / config.head_dim)
    angles = torch.arange(length, dtype=torch.float32, device=device)[:, None] * frequencies
    angles = torch.cat([angles, angles], dim=-1)
    return angles.cos(), angles.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Apply rotary positions. x: [B, H, T, head_dim]; cos, sin: [T, head_dim]."""
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-second, first], dim=-1) * sin


class GainNorm(nn.Module):
    """LayerNorm over the last dimension with a gain and no bias."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, self.weight.shape, self.weight, None, self.eps)


class Attention(nn.Module):
    def __init__(self, config: AnchorConfig) -> None:
        super().__init__()
        width = config.heads * config.head_dim
        self.heads, self.head_dim = config.heads, config.head_dim
        self.wq = nn.Linear(config.d_model, width, bias=False)
        self.wk = nn.Linear(config.d_model, width, bias=False)
        self.wv = nn.Linear(config.d_model, width, bias=False)
        self.wo = nn.Linear(width, config.d_model, bias=False)
        self.q_norm = GainNorm(width, config.norm_eps)
        self.k_norm = GainNorm(width, config.norm_eps)

    def forward(
        self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor | None, memory: LayerMemory = NO_MEMORY
    ) -> Tensor:
        q = self.q_norm(memory.project("wq", x, self.wq(x)))
        k = self.k_norm(memory.project("wk", x, self.wk(x)))
        v = memory.project("wv", x, self.wv(x))
        q, k, v = (t.unflatten(-1, (self.heads, self.head_dim)).transpose(1, 2) for t in (q, k, v))
        remembered = memory.attend(q, self.head_dim**-0.5)
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None)
        if remembered is not None:
            y = y + remembered
        y = y.transpose(1, 2).flatten(2)
        return memory.project("wo", y, self.wo(y))


class FeedForward(nn.Module):
    def __init__(self, config: AnchorConfig) -> None:
        super().__init__()
        self.w1 = nn.Linear(config.d_model, config.ffn_dim, bias=False)
        self.w2 = nn.Linear(config.d_model, config.ffn_dim, bias=False)
        self.w3 = nn.Linear(config.ffn_dim, config.d_model, bias=False)

    def forward(self, x: Tensor, memory: LayerMemory = NO_MEMORY) -> Tensor:
        hidden = F.silu(memory.project("w1", x, self.w1(x))) * memory.project("w2", x, self.w2(x))
        return memory.project("w3", hidden, self.w3(hidden))


class Block(nn.Module):
    def __init__(self, config: AnchorConfig) -> None:
        super().__init__()
        self.attention_norm = GainNorm(config.d_model, config.norm_eps)
        self.attention = Attention(config)
        self.ffn_norm = GainNorm(config.d_model, config.norm_eps)
        self.feed_forward = FeedForward(config)

    def forward(
        self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor | None, memory: LayerMemory = NO_MEMORY
    ) -> Tensor:
        x = x + self.attention(self.attention_norm(x), cos, sin, mask, memory)
        h = self.ffn_norm(x)
        x = x + self.feed_forward(h, memory)
        remembered = memory.ffn(h)
        return x if remembered is None else x + remembered


def document_mask(documents: Tensor) -> Tensor:
    """True where a query may see a key: the same document, not later. [B, T] -> bool [B, 1, T, T]."""
    causal = torch.ones(
        documents.shape[1], documents.shape[1], dtype=torch.bool, device=documents.device
    ).tril()
    return ((documents[:, :, None] == documents[:, None, :]) & causal).unsqueeze(1)


class MemoryReader(nn.Module, ABC):
    """What training and evaluation know of an anchor, ours or another family's."""

    @abstractmethod
    def hidden(
        self, tokens: Tensor, memory: MemoryRows | None = None, documents: Tensor | None = None
    ) -> Tensor:
        """Normalised hidden states [B, T, d]; arguments as in `forward`."""

    @abstractmethod
    def logits(self, hidden: Tensor) -> Tensor:
        """[..., vocab_size] of hidden states [..., d]."""

    def forward(
        self, tokens: Tensor, memory: MemoryRows | None = None, documents: Tensor | None = None
    ) -> Tensor:
        """Logits of every next token, [B, T, vocab_size].

        tokens: i64 [B, T]. memory: the fetched rows, None for the anchor alone. documents: i64 [B, T], equal
        within a packed document: attention does not cross from one into another; None: one document each.
        """
        return self.logits(self.hidden(tokens, memory, documents))


class Anchor(MemoryReader):
    """The decoder of OpenLM's kind."""

    def __init__(self, config: AnchorConfig) -> None:
        super().__init__()
        self.config = config
        self.tok_embeddings = nn.Embedding(config.vocab_size, config.d_model)
        self.layers = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = GainNorm(config.d_model, config.norm_eps)
        self.output = (
            None if config.tied_embeddings else nn.Linear(config.d_model, config.vocab_size, bias=False)
        )

    @property
    def output_weight(self) -> Tensor:
        """The matrix that turns hidden states into logits, [vocab_size, d]."""
        return self.tok_embeddings.weight if self.output is None else self.output.weight

    def hidden(
        self, tokens: Tensor, memory: MemoryRows | None = None, documents: Tensor | None = None
    ) -> Tensor:
        x = self.tok_embeddings(tokens)
        cos, sin = rotary_tables(self.config, tokens.shape[1], tokens.device)
        mask = None if documents is None else document_mask(documents)
        memories = {} if memory is None else memory.by_layer()
        for index, block in enumerate(self.layers):
            x = block(x, cos, sin, mask, memories.get(index, NO_MEMORY))
        return cast(Tensor, self.norm(x))

    def logits(self, hidden: Tensor) -> Tensor:
        return F.linear(hidden, self.output_weight)

    @torch.no_grad()
    def initialize(self, generator: torch.Generator) -> None:
        """OpenLM's initialisation: normal of 1/sqrt(fan in), cut at 3 sigma, branches damped with depth."""

        def fill(weight: Tensor, std: float) -> None:
            nn.init.trunc_normal_(weight, std=std, a=-3 * std, b=3 * std, generator=generator)

        for module in (self.tok_embeddings, self.output):
            if module is not None:
                fill(module.weight, self.config.d_model**-0.5)
        for index, block in enumerate(self.layers):
            block = cast(Block, block)
            damping = 1 / math.sqrt(2 * (index + 1))
            attention, ffn = block.attention, block.feed_forward
            for linear in (attention.wq, attention.wk, attention.wv, ffn.w1, ffn.w2):
                fill(linear.weight, linear.in_features**-0.5)
            for linear in (attention.wo, ffn.w3):
                fill(linear.weight, linear.in_features**-0.5 * damping)
