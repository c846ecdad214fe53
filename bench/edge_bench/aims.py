"""What the figures are to reach; tables show it beside them, met or missed."""

from __future__ import annotations

from typing import NamedTuple


class Aim(NamedTuple):
    value: float
    most: bool = False  # at most, not at least

    def __str__(self) -> str:
        return f"{'at most' if self.most else 'at least'} {self.value:g}"

    def told(self, value: float) -> str:
        """The aim, and whether it is met."""
        met = value <= self.value if self.most else value >= self.value
        return f"{self}: {'met' if met else '**missed**'}"


KEYS = {
    "cold_over_raw": Aim(0.9),
    "cold_over_memmap": Aim(4),
    "cold_over_mmap_ninja": Aim(3),
    "cold_over_safetensors": Aim(3),
    "verify_share": Aim(1.03, most=True),
    "warm_lease_us": Aim(20, most=True),
    "decode_ratio_int8": Aim(0.9),
    "prefill_ratio_int8": Aim(0.85),
    "added_ms_over_limit_int8": Aim(1.25, most=True),
    "added_ms_over_limit_int4": Aim(1.25, most=True),
    "kernel_share_of_bandwidth": Aim(0.8),
    "hidden_fetch_16_2gbs": Aim(0.3, most=True),
    "hidden_fetch_16_0_6gbs": Aim(0.6, most=True),
    "ttft_cold_over_warm_2gbs": Aim(1.05, most=True),
}
"""Of records' keys."""

PREFILL = Aim(1)
SWAPS = {"swap, preloaded": Aim(8), "swap, cold": Aim(4)}
"""Over each peer, so over the fastest."""

DECODE = {
    ("160M", "decode", "native i4", "llama.cpp Q4_0"): Aim(2),
    ("160M", "decode, ours with memory", "native i4", "llama.cpp Q4_0"): Aim(1.8),
    ("160M", "decode", "native i8", "llama.cpp Q8_0"): Aim(1.8),
    ("160M", "decode", "native i4", "executorch 8da4w"): Aim(1.7),
    ("410M", "decode", "native i4", "llama.cpp Q4_0"): Aim(1.5),
    ("1.4B", "decode", "native i4", "llama.cpp Q4_0"): Aim(1.1),
}
"""By model, what, ours and the other."""


def of_ratio(model: str, what: str, ours: str, other: str) -> Aim | None:
    if what.startswith("prefill"):
        return PREFILL
    return SWAPS.get(what) or DECODE.get((model, what, ours, other))


def told(aim: Aim | None, value: float) -> str:
    return "-" if aim is None else aim.told(value)
