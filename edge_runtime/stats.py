"""What a generation cost: time, bytes and memory."""

from __future__ import annotations

import math
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class ResidentMemory:
    """Physical memory of this process, in bytes; anonymous and file-backed parts where the system tells them."""

    total: int
    anonymous: int | None
    file: int | None


def resident_memory() -> ResidentMemory:
    """This process's resident memory now; its peak where there is no /proc, as on macOS."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except FileNotFoundError:
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return ResidentMemory(peak if sys.platform == "darwin" else peak * 1024, None, None)
    kib = {
        key: int(value.split()[0])
        for key, _, value in (line.partition(":") for line in lines)
        if key in ("VmRSS", "RssAnon", "RssFile")
    }
    return ResidentMemory(kib["VmRSS"] * 1024, kib["RssAnon"] * 1024, kib["RssFile"] * 1024)


@dataclass
class GenerationStats:
    """One generation. Complete once its iterator has ended; `to_json` gives plain values.

    The budget covers bank bytes; the KV cache and the weights stand beside it.
    """

    text: str = ""
    memory: str = "none"  # fetched, generic or none
    path: list[int] = field(default_factory=list)  # the nodes of levels 1, 2, ... that were read last
    # Per level: how much farther the runner-up was, in squared distance; infinity for an only child.
    margins: list[float] = field(default_factory=list)
    prompt_tokens: int = 0
    cached_tokens: int = 0  # of them, those that the KV cache still held from the request before
    generated_tokens: int = 0
    routes: int = 0  # how often the router was asked
    switches: int = 0  # how often other blocks were fetched while the answer was generated
    route_ms: float = 0.0  # embedding and descent, all together
    fetch_ms: float | None = 0.0  # until the last byte was verified; None: it never was
    # What of the fetch the program waited for, and what went on behind computation; None: see fetch_ms.
    stall_ms: float | None = 0.0
    hidden_ms: float | None = 0.0
    ttft_ms: float | None = None  # from the call to the first token
    decode_tokens_per_s: float | None = None  # of the tokens after the first
    bytes_read: int = 0  # from storage, by this generation's fetches
    bank_bytes: int = 0  # of all level files
    bank_resident_bytes: int = 0  # blocks in memory
    budget_bytes: int = 0
    kv_bytes: int = 0
    weights_bytes: int = 0  # the program file
    engine_constant_bytes: int = 0  # the process with the engine loaded and nothing opened
    resident_bytes: int = 0  # the process now
    resident_anonymous_bytes: int | None = None
    resident_file_bytes: int | None = None

    def to_json(self) -> dict[str, Any]:
        """The members as JSON values: times rounded to a microsecond, infinite margins as None."""
        values = asdict(self)
        for key in ("route_ms", "fetch_ms", "stall_ms", "hidden_ms", "ttft_ms", "decode_tokens_per_s"):
            values[key] = None if values[key] is None else round(values[key], 3)
        values["margins"] = [round(m, 6) if math.isfinite(m) else None for m in self.margins]
        return values
