"""The dense models that the peers run: our anchors, and one of about twice the 160M anchor's parameters."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edge_pretrain.model import AnchorConfig

DOUBLED = "320M"
"""As deep as the 160M anchor and wider: 2.0 times its parameters. Pouransari et al. 2025 find the anchor with its
fetched memory as good as a dense model of that size."""


def anchor(name: str) -> AnchorConfig:
    """By the paper's name, or DOUBLED. The context is that of the synthetic bundles."""
    # Here and not above: they import torch, which a measured process must not carry along.
    from edge_bench.synthetic import Synthetic
    from edge_pretrain.model import AnchorConfig

    if name == DOUBLED:
        return AnchorConfig(35, 768, 12, 64, 2560, 50_432, anchor("160M").context_length)
    return Synthetic(name).anchor


def token_bytes(name: str, file_bytes: int, bits: float) -> int:
    """Of a file of weights, what a token reads: all of it, but for an embedding that is not the head as well.

    bits: of one of its values, scales included.
    """
    config = anchor(name)
    embedding = 0 if config.tied_embeddings else config.vocab_size * config.d_model
    return file_bytes - round(embedding * bits / 8)
