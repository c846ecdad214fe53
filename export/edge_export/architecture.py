"""What a decoder is: its dimensions, and the options in which families of anchors differ. No torch in here."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class Rope:
    """Rotary positions. `scaling`: none; linear, positions divided by `factor`; llama3, which divides slow frequencies
    only: those with fewer than `low` turns in `original_context` tokens, and in part those with fewer than `high`."""

    theta: float
    scaling: Literal["none", "linear", "llama3"] = "none"
    factor: float = 1.0
    low: float = 1.0
    high: float = 4.0
    original_context: int = 0


@dataclass(frozen=True)
class LayerOptions:
    """rope: None for a layer without positions (NoPE). window: a query sees that many tokens, itself included."""

    rope: Rope | None
    window: int | None = None


@dataclass(frozen=True)
class DecoderConfig:
    """Dimensions and options.

    pre_norm, post_norm: of each branch, attention and FFN alike: x + post(branch(pre(x))).
    qk_norm: over the width of all heads together, or over each head, before the rotation.
    attention_scale: of q k^T. logit_softcap: c, for c tanh(x / c).
    """

    layers: tuple[LayerOptions, ...]
    d_model: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn_dim: int
    vocab_size: int
    context_length: int
    norm: Literal["layernorm", "rmsnorm"]
    norm_eps: float
    activation: Literal["silu", "gelu_tanh"]
    qk_norm: Literal["none", "width", "head"]
    tied_embeddings: bool
    attention_scale: float
    pre_norm: bool = True
    post_norm: bool = False
    qkv_bias: bool = False
    output_bias: bool = False
    ffn_bias: bool = False
    embedding_scale: float = 1.0
    logit_softcap: float | None = None

    @property
    def parameters(self) -> int:
        """The number of weights; a tied head counts once."""
        q, kv, d, f = self.heads * self.head_dim, self.kv_heads * self.head_dim, self.d_model, self.ffn_dim
        attention = d * (q + 2 * kv) + q * d + (q + 2 * kv) * self.qkv_bias + d * self.output_bias
        norms = d * (2 * self.pre_norm + 2 * self.post_norm)
        norms += {"none": 0, "width": q + kv, "head": 2 * self.head_dim}[self.qk_norm]
        ffn = 3 * d * f + (2 * f + d) * self.ffn_bias
        embeddings = self.vocab_size * d * (1 if self.tied_embeddings else 2)
        return len(self.layers) * (attention + norms + ffn) + d + embeddings

    def to_manifest(self) -> dict[str, Any]:
        """The manifest's `anchor` object (docs/bundle-format.md)."""
        options = asdict(self)
        options["layers"] = [asdict(layer) for layer in self.layers]
        shared = (
            "d_model", "heads", "kv_heads", "head_dim", "ffn_dim", "vocab_size", "context_length",
            "norm", "norm_eps", "activation", "tied_embeddings",
        )  # fmt: skip
        theta = next((layer.rope.theta for layer in self.layers if layer.rope), 0.0)
        return {
            "architecture": "decoder",
            "parameters": self.parameters,
            "layers": len(self.layers),
            **{name: options.pop(name) for name in shared},
            "rope_theta": theta,
            "qk_norm": self.qk_norm == "width",
            "options": options,
        }
