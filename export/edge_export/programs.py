"""The programs of a bundle: which there are, and what the manifest says of them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from edge_export.apart import write_apart
from edge_export.cost import costed
from edge_export.inputs import Inputs
from edge_export.memory import InputMemory
from edge_export.quiet import quiet_libraries
from edge_export.source import BANK_DTYPES, ExportConfig, Source
from edge_runtime.engines import check_memory_kind

Report = Callable[[str], None]


# Values of an anchor. From here on a program's lowering leaves gigabytes behind, and a process of its own, which takes
# seconds to start, gives them back before the next one.
LARGE = 50_000_000


def write_programs(
    root: Path, source: Source, inputs: Inputs, config: ExportConfig, report: Report
) -> list[dict[str, Any]]:
    """Writes the programs that the configuration names; returns the manifest's entries, in that order.

    inputs: what `load_inputs` makes of the source.

    Raises EdgeRuntimeError where a process of a program's own ends before the program is written.
    """
    alone = [replace(config, programs=(program,)) for program in config.programs]
    if len(alone) > 1 and inputs.decoder.config.parameters >= LARGE:
        return [write_apart(root, source, one, report) for one in alone]
    return [write_program(root, inputs, one, report) for one in alone]


def write_program(
    root: Path, inputs: Inputs, config: ExportConfig, report: Report, consume: bool = False
) -> dict[str, Any]:
    """Writes the configuration's only program, and says what it cost; returns the manifest's entry.

    consume: the inputs are of no use afterwards, so that weights can be quantised without a copy of all of them.
    """
    writers = {
        ("executorch", "paged"): _executorch,
        ("executorch", "portable"): _executorch,
        ("native", "paged"): _native,
        ("onnx", "portable"): _onnx_portable,
        ("coreml", "portable"): _coreml,
        ("coreml", "stateful"): _coreml,
    }
    ((engine, flavour),) = config.programs
    quantises = engine == "executorch" and config.delegate == "xnnpack" and config.dtype_of(engine) != "f32"
    if quantises and not consume:
        inputs = replace(inputs, decoder=copy.deepcopy(inputs.decoder))
    with quiet_libraries(), costed(f"{engine}, {flavour}", report):
        return writers[engine, flavour](root, inputs, config, flavour, report)


def _max_prefill(inputs: Inputs, config: ExportConfig) -> int:
    return min(config.max_prefill, inputs.decoder.config.context_length)


def _executorch(
    root: Path, inputs: Inputs, config: ExportConfig, flavour: str, report: Report
) -> dict[str, Any]:
    if config.delegate == "coreml":
        return _delegated(root, inputs, config, flavour, report)
    from edge_export.decoder import PagedDecoder, PortableCachedDecoder
    from edge_export.executorch import export_paged, export_portable
    from edge_export.quantize import quantize_decoder

    max_prefill, dtype = _max_prefill(inputs, config), config.dtype_of("executorch")
    entry = program_entry(max_prefill, dtype, flavour)
    report(f"{entry['path']}: lowering the anchor to XNNPACK, {dtype}")
    decoder = inputs.decoder
    quantize_decoder(decoder, dtype)
    if flavour == "paged":
        export_paged(PagedDecoder(decoder, inputs.memory_layers), max_prefill, root / entry["path"])
    else:
        portable = PortableCachedDecoder(decoder, _memory(inputs))
        export_portable(portable, inputs.memory_shapes, max_prefill, root / entry["path"])
    return entry


def _delegated(
    root: Path, inputs: Inputs, config: ExportConfig, flavour: str, report: Report
) -> dict[str, Any]:
    check_memory_kind(inputs.memory_kind, "coreml/portable")
    from edge_export.executorch_coreml import (
        MAX_PREFILL,
        PATH,
        DelegatedDecoder,
        export_delegated,
        with_own_table,
    )

    dtype = config.dtype_of("executorch")
    report(f"{PATH}: lowering the anchor to Core ML, {dtype}")
    anchor = inputs.decoder if dtype == "f16" else with_own_table(inputs.decoder)
    export_delegated(DelegatedDecoder(anchor, _memory(inputs)), inputs.memory_shapes, dtype, root / PATH)
    return program_entry(MAX_PREFILL, dtype, flavour) | {"path": PATH, "delegate": "coreml"}


def _memory(inputs: Inputs) -> InputMemory:
    return InputMemory(inputs.memory_kind, inputs.memory_layers)


def memory_dtypes(inputs: Inputs, config: ExportConfig) -> list[torch.dtype]:
    """Of a portable program's memory inputs, level by level: what the bank holds, where stock operators read it."""
    levels = inputs.memories.config.levels if inputs.memories else ()
    return [torch.float16 if config.bank_dtype(level) == "f16" else torch.float32 for level, _ in levels]


def _onnx_portable(
    root: Path, inputs: Inputs, config: ExportConfig, flavour: str, report: Report
) -> dict[str, Any]:
    from edge_export.onnx import export_onnx
    from edge_export.portable import PortableDecoder

    dtype, path = config.dtype_of("onnx"), root / "anchor.portable.onnx"
    report(f"{path.name}: the anchor for ONNX Runtime, {dtype}")
    anchor = inputs.decoder
    if dtype != "f32":
        from edge_export.onnx_quantize import quantize_onnx, with_int8_embedding

        anchor = with_int8_embedding(anchor)
    decoder = PortableDecoder(anchor, _memory(inputs))
    export_onnx(decoder, inputs.memory_shapes, memory_dtypes(inputs, config), path)
    if dtype != "f32":
        quantize_onnx(path, dtype)
    program = {"engine": "onnx", "path": "anchor.portable.onnx", "method": "main"}
    return program_entry(_max_prefill(inputs, config), dtype, flavour) | program


def _native(root: Path, inputs: Inputs, config: ExportConfig, flavour: str, report: Report) -> dict[str, Any]:
    from edge_export.native import PATH, write_native

    dtype = config.dtype_of("native")
    report(f"{PATH}: packing the anchor's rows, {dtype}")
    write_native(inputs.decoder, inputs.anchor, dtype, root / PATH)
    return program_entry(_max_prefill(inputs, config), dtype, flavour) | {"engine": "native", "path": PATH}


def _coreml(root: Path, inputs: Inputs, config: ExportConfig, flavour: str, report: Report) -> dict[str, Any]:
    dtype, max_prefill = config.dtype_of("coreml"), _max_prefill(inputs, config)
    path, shapes = f"anchor.{flavour}.mlpackage", inputs.memory_shapes
    report(f"{path}: the anchor for Core ML, {dtype}")
    from edge_export.coreml import CoremlDecoder, StatefulDecoder, export_coreml

    if flavour == "stateful":
        stateful = StatefulDecoder(inputs.decoder, _memory(inputs), shapes)
        export_coreml(stateful, [], max_prefill, dtype, root / path)
    else:
        export_coreml(CoremlDecoder(inputs.decoder, _memory(inputs)), shapes, max_prefill, dtype, root / path)
    program = {"engine": "coreml", "path": path, "method": "decode"}
    return program_entry(max_prefill, dtype, flavour) | program


def program_entry(max_prefill: int, dtype: str, flavour: str = "paged") -> dict[str, Any]:
    """What the manifest says of a program, ExecuTorch's where nothing else is put in its place."""
    return {
        "engine": "executorch",
        "flavour": flavour,
        "path": f"anchor.{flavour}.pte",
        "method": "forward",
        "max_prefill": max_prefill,
        "dtype": dtype,
        "bank_dtypes": list(BANK_DTYPES),
    }
