"""Small checkpoints of each Hugging Face family, as transformers saves them, every tensor random."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM

SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 320,
    "max_position_embeddings": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 10_000.0, "factor": 8.0, "low_freq_factor": 1.0,
    "high_freq_factor": 4.0, "original_max_position_embeddings": 16,
}  # fmt: skip
LINEAR = {"rope_type": "linear", "rope_theta": 10_000.0, "factor": 4.0}
DEFAULT = {"rope_type": "default", "rope_theta": 10_000.0}
SLIDING = {"sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"]}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama3": ("llama", {"rope_parameters": LLAMA3, "tie_word_embeddings": False}),
    "llama-biased": (
        "llama",
        {"rope_parameters": LINEAR, "attention_bias": True, "mlp_bias": True, "head_dim": 16},
    ),
    "smollm2": ("llama", {"tie_word_embeddings": True}),
    "qwen2": ("qwen2", {"use_sliding_window": True, **SLIDING}),
    "qwen3": ("qwen3", {"head_dim": 16, "use_sliding_window": True, **SLIDING}),
    "gemma3": (
        "gemma3_text",
        {
            "head_dim": 16, "query_pre_attn_scalar": 24, **SLIDING,
            "rope_parameters": {"full_attention": LINEAR, "sliding_attention": DEFAULT},
        },
    ),
    "gemma3-capped": (
        "gemma3_text",
        {"head_dim": 16, "final_logit_softcapping": 3.0, **SLIDING},
    ),
    "smollm3": ("smollm3", {"no_rope_layers": [1, 0], "attention_bias": True}),
    "olmo2": ("olmo2", {"tie_word_embeddings": False, "rope_parameters": LINEAR}),
}  # fmt: skip


def save(case: str, folder: Path, **changes: Any) -> Any:
    """Writes the checkpoint and a tokenizer of bytes; returns transformers' model."""
    family, options = CASES[case]
    config = AutoConfig.for_model(family, **(SIZES | options | changes))
    config._attn_implementation = "eager"
    model = AutoModelForCausalLM.from_config(config).eval()
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            scale = (
                0.3 if name.endswith("norm.weight") or parameter.ndim == 1 else parameter.shape[-1] ** -0.5
            )
            centre = 1.0 if name.endswith("norm.weight") and "gemma" not in family else 0.0
            parameter.copy_(centre + scale * torch.randn(parameter.shape, generator=generator))
    model.save_pretrained(folder)
    vocabulary = {token: i + 3 for i, token in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    vocabulary |= {"<pad>": 0, "<s>": 1, "</s>": 2}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(folder / "tokenizer.json"))
    return model
