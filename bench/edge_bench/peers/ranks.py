"""The LoRA adapter that is compared with a fetched path of FFN memory."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edge_bench.banks import BankConfig


def lora_rank(products: Iterable[tuple[int, int]], bank: BankConfig, multiple: int = 1) -> int:
    """Of an adapter to the products (in, out) of all layers that has about as many parameters as a path of the bank."""
    path = 3 * bank.layers * bank.d_model * sum(bank.rows)
    return multiple * max(1, round(path / sum(into + out for into, out in products) / multiple))
