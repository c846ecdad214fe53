"""The programs of a bundle: which there are, and what the manifest says of them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edge_export.inputs import Inputs
from edge_export.quiet import quiet_libraries
from edge_export.source import ExportConfig

Report = Callable[[str], None]
# The memory kernel reads these in place.
BANK_DTYPES = ("f32", "f16", "bf16", "i8", "i4")


def write_programs(root: Path, inputs: Inputs, config: ExportConfig, report: Report) -> list[dict[str, Any]]:
    """Writes the programs that the configuration names; returns the manifest's entries, in that order."""
    writers = {("executorch", "paged"): _executorch_paged}
    return [writers[program](root, inputs, config, report) for program in config.programs]


def _max_prefill(inputs: Inputs, config: ExportConfig) -> int:
    return min(config.max_prefill, inputs.decoder.config.context_length)


def _executorch_paged(root: Path, inputs: Inputs, config: ExportConfig, report: Report) -> dict[str, Any]:
    from edge_export.decoder import PagedDecoder
    from edge_export.executorch import export_paged
    from edge_export.quantize import quantize_decoder

    max_prefill, dtype = _max_prefill(inputs, config), config.anchor_dtype
    report(f"anchor.paged.pte: lowering the anchor to XNNPACK, {dtype}")
    decoder = copy.deepcopy(inputs.decoder) if dtype != "f32" else inputs.decoder
    quantize_decoder(decoder, dtype)
    with quiet_libraries():
        export_paged(PagedDecoder(decoder, inputs.memory_layers), max_prefill, root / "anchor.paged.pte")
    return program_entry(max_prefill, dtype)


def program_entry(max_prefill: int, dtype: str) -> dict[str, Any]:
    """What the manifest says of the paged program."""
    return {
        "engine": "executorch",
        "flavour": "paged",
        "path": "anchor.paged.pte",
        "method": "forward",
        "max_prefill": max_prefill,
        "dtype": dtype,
        "bank_dtypes": list(BANK_DTYPES),
    }
