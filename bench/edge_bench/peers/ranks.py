"""The LoRA adapter that is compared with a fetched path of FFN memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edge_bench.banks import BankConfig
    from edge_pretrain.model import AnchorConfig

GROUP = 32  # of values that share a scale in GGUF's Q8_0, along a row


def lora_rank(config: AnchorConfig, bank: BankConfig) -> int:
    """Of an adapter to the FFN's three products that has about the path's parameters: a multiple of GROUP."""
    path = 3 * bank.layers * bank.d_model * sum(bank.rows)
    a_rank = 3 * config.layers * (config.d_model + config.ffn_dim)
    return GROUP * max(1, round(path / a_rank / GROUP))
