"""Anchors out of Hugging Face folders: config.json decides which family, and with which options."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from edge_export.architecture import DecoderConfig, LayerOptions, Rope
from edge_export.model import Decoder
from edge_export.weights import Weights
from edge_pretrain.hf_folder import hf_config
from edge_runtime.errors import BadFormatError, UnsupportedError

ACTIVATIONS: dict[str, Literal["silu", "gelu_tanh"]] = {"silu": "silu", "gelu_pytorch_tanh": "gelu_tanh"}
# Tables that older checkpoints carry, and heads that are tied to the embedding.
IGNORED = ("rotary_emb.inv_freq", "lm_head.weight")


def decoder_config(folder: Path, context_length: int) -> DecoderConfig:
    """The decoder of the folder's config.json; its context is cut to `context_length` tokens.

    Raises:
        UnsupportedError: the family, or an option of it, is not supported.
        BadFormatError: config.json is damaged.
    """
    from transformers import AutoConfig

    path = folder / "config.json"
    family = hf_config(folder)["model_type"]
    try:
        # It fills in what older files leave out or say otherwise.
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # whatever its validation raises
        raise BadFormatError(f"{path}: not a config of {family}: {' '.join(str(error).split())}") from None
    activation = getattr(config, "hidden_activation", None) or config.hidden_act
    if activation not in ACTIVATIONS:
        raise UnsupportedError(f"{path}: activation {activation!r}: there are {', '.join(ACTIVATIONS)}")
    if getattr(config, "attn_logit_softcapping", None) is not None:
        # transformers keeps the value and attends without it, so that there is no reference to agree with.
        raise UnsupportedError(f"{path}: attn_logit_softcapping: no published model of {family} has one")
    if getattr(config, "use_bidirectional_attention", None):
        raise UnsupportedError(f"{path}: use_bidirectional_attention: a decoder reads from left to right")
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    if head_dim % 2 or config.num_attention_heads % config.num_key_value_heads:
        raise BadFormatError(
            f"{path}: {config.num_attention_heads} heads of {head_dim} for {config.num_key_value_heads} keys: "
            "heads must be even in width and a multiple of the keys"
        )
    gemma, bias = family == "gemma3_text", bool(getattr(config, "attention_bias", False))
    qk_norm: dict[str, Literal["none", "width", "head"]] = {
        "qwen3": "head",
        "gemma3_text": "head",
        "olmo2": "width",
    }
    return DecoderConfig(
        layers=tuple(_layer(path, family, config, layer) for layer in range(config.num_hidden_layers)),
        d_model=config.hidden_size,
        heads=config.num_attention_heads,
        kv_heads=config.num_key_value_heads,
        head_dim=head_dim,
        ffn_dim=config.intermediate_size,
        vocab_size=config.vocab_size,
        context_length=min(context_length, config.max_position_embeddings),
        norm="rmsnorm",
        norm_eps=config.rms_norm_eps,
        activation=ACTIVATIONS[activation],
        qk_norm=qk_norm.get(family, "none"),
        tied_embeddings=bool(config.tie_word_embeddings),
        attention_scale=(config.query_pre_attn_scalar if gemma else head_dim) ** -0.5,
        pre_norm=family != "olmo2",
        post_norm=gemma or family == "olmo2",
        qkv_bias=bias or family == "qwen2",
        output_bias=bias,
        ffn_bias=bool(getattr(config, "mlp_bias", False)),
        embedding_scale=config.hidden_size**0.5 if gemma else 1.0,
        logit_softcap=getattr(config, "final_logit_softcapping", None),
    )


def _layer(path: Path, family: str, config: Any, layer: int) -> LayerOptions:
    types = getattr(config, "layer_types", None)
    kind = types[layer] if types else "full_attention"
    if kind not in ("full_attention", "sliding_attention"):
        raise UnsupportedError(f"{path}: layer {layer} is of {kind!r}: there is full and sliding attention")
    window = config.sliding_window if kind == "sliding_attention" else None
    if family == "smollm3" and not config.no_rope_layers[layer]:
        return LayerOptions(None, window)
    parameters = config.rope_parameters
    return LayerOptions(_rope(path, parameters.get(kind, parameters)), window)


def _rope(path: Path, parameters: dict[str, Any]) -> Rope:
    kind, theta = parameters.get("rope_type", "default"), float(parameters["rope_theta"])
    if parameters.get("partial_rotary_factor", 1.0) != 1.0:
        raise UnsupportedError(f"{path}: partial_rotary_factor: heads are rotated as a whole")
    if kind == "default":
        return Rope(theta)
    if kind == "linear":
        return Rope(theta, "linear", float(parameters["factor"]))
    if kind == "llama3":
        return Rope(
            theta,
            "llama3",
            float(parameters["factor"]),
            float(parameters["low_freq_factor"]),
            float(parameters["high_freq_factor"]),
            int(parameters["original_max_position_embeddings"]),
        )
    raise UnsupportedError(f"{path}: rope_type {kind!r}: there are default, linear and llama3")


# The parts of a block that are stored under one name each: ours, and that of the families.
NORMS = {
    "pre": {"attention_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm"},
    "post": {
        "attention_post_norm": "post_attention_layernorm",
        "ffn_post_norm": "post_feedforward_layernorm",
    },
    "sandwich": {
        "attention_norm": "input_layernorm",
        "attention_post_norm": "post_attention_layernorm",
        "ffn_norm": "pre_feedforward_layernorm",
        "ffn_post_norm": "post_feedforward_layernorm",
    },
}
PRODUCTS = {
    "attention.qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "attention.wo": ("self_attn.o_proj",),
    "feed_forward.w12": ("mlp.gate_proj", "mlp.up_proj"),
    "feed_forward.w3": ("mlp.down_proj",),
}


def load_decoder(folder: Path, context_length: int) -> Decoder:
    """The anchor of a folder, in f32.

    Raises:
        NotFoundError, BadFormatError, UnsupportedError: as `decoder_config` and `Weights`; one line each.
    """
    config = decoder_config(folder, context_length)
    # Gemma stores what its norms' gains differ from 1 by.
    offset = 1.0 if hf_config(folder)["model_type"] == "gemma3_text" else 0.0
    weights = Weights(folder)
    with torch.device("meta"):
        decoder = Decoder(config)
    shapes = {name: tuple(tensor.shape) for name, tensor in decoder.state_dict().items()}
    found: dict[str, Tensor] = {}

    def norm(ours: str, theirs: str) -> None:
        found[f"{ours}.weight"] = weights.read(f"{theirs}.weight", shapes[f"{ours}.weight"]) + offset

    found["tok_embeddings.weight"] = weights.read(
        "model.embed_tokens.weight", shapes["tok_embeddings.weight"]
    )
    norm("norm", "model.norm")
    found["output.weight"] = (
        found["tok_embeddings.weight"]
        if config.tied_embeddings
        else weights.read("lm_head.weight", shapes["output.weight"])
    )
    order = "sandwich" if config.pre_norm and config.post_norm else "pre" if config.pre_norm else "post"
    for layer in range(len(config.layers)):
        ours, theirs = f"blocks.{layer}.", f"model.layers.{layer}."
        for name, source in NORMS[order].items():
            norm(ours + name, theirs + source)
        if config.qk_norm != "none":
            norm(f"{ours}attention.q_norm", f"{theirs}self_attn.q_norm")
            norm(f"{ours}attention.k_norm", f"{theirs}self_attn.k_norm")
        for name, sources in PRODUCTS.items():
            for kind in ("weight", "bias"):
                if (whole := f"{ours}{name}.{kind}") in shapes:
                    sizes = _sizes(config, name)
                    parts = [
                        weights.read(f"{theirs}{source}.{kind}", (size, *shapes[whole][1:]))
                        for source, size in zip(sources, sizes, strict=True)
                    ]
                    found[whole] = parts[0] if len(parts) == 1 else torch.cat(parts)
    weights.check_all_read(IGNORED)
    decoder.load_state_dict(found, assign=True)
    if config.tied_embeddings:
        decoder.output.weight = cast(nn.Parameter, decoder.tok_embeddings.weight)
    return decoder.eval().requires_grad_(False)


def _sizes(config: DecoderConfig, product: str) -> list[int]:
    """How many outputs each part of a product has."""
    q, kv = config.heads * config.head_dim, config.kv_heads * config.head_dim
    return {
        "attention.qkv": [q, kv, kv],
        "attention.wo": [config.d_model],
        "feed_forward.w12": [config.ffn_dim, config.ffn_dim],
        "feed_forward.w3": [config.d_model],
    }[product]
