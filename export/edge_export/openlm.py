"""The anchors that `edge_pretrain` trains, as a `Decoder`."""

from __future__ import annotations

from typing import cast

import torch
from torch import nn

from edge_export.architecture import DecoderConfig, LayerOptions, Rope
from edge_export.model import Decoder, stacked
from edge_pretrain.model import Anchor, AnchorConfig, Block


def decoder_config(config: AnchorConfig, context_length: int | None = None) -> DecoderConfig:
    """context_length: tokens, at most; None for all that the anchor has."""
    return DecoderConfig(
        layers=(LayerOptions(Rope(config.rope_theta)),) * config.layers,
        d_model=config.d_model,
        heads=config.heads,
        kv_heads=config.heads,
        head_dim=config.head_dim,
        ffn_dim=config.ffn_dim,
        vocab_size=config.vocab_size,
        context_length=min(context_length or config.context_length, config.context_length),
        norm="layernorm",
        norm_eps=config.norm_eps,
        activation="silu",
        qk_norm="width",
        tied_embeddings=config.tied_embeddings,
        attention_scale=config.head_dim**-0.5,
    )


def from_anchor(anchor: Anchor, context_length: int | None = None) -> Decoder:
    """Shares all weights but those that it stacks. context_length: as `decoder_config`."""
    with torch.device("meta"):
        decoder = Decoder(decoder_config(anchor.config, context_length))
    weights = {"tok_embeddings.weight": anchor.tok_embeddings.weight, "norm.weight": anchor.norm.weight}
    weights["output.weight"] = cast(nn.Parameter, anchor.output_weight)
    for index, module in enumerate(anchor.layers):
        block, at = cast(Block, module), f"blocks.{index}."
        source, ffn = block.attention, block.feed_forward
        weights |= {
            f"{at}attention_norm.weight": block.attention_norm.weight,
            f"{at}ffn_norm.weight": block.ffn_norm.weight,
            f"{at}attention.qkv.weight": stacked([source.wq.weight, source.wk.weight, source.wv.weight]),
            f"{at}attention.wo.weight": source.wo.weight,
            f"{at}attention.q_norm.weight": source.q_norm.weight,
            f"{at}attention.k_norm.weight": source.k_norm.weight,
            f"{at}feed_forward.w12.weight": stacked([ffn.w1.weight, ffn.w2.weight]),
            f"{at}feed_forward.w3.weight": ffn.w3.weight,
        }
    decoder.load_state_dict(weights, assign=True)
    return decoder.eval()
