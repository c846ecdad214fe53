"""Writes ONNX programs: the portable anchor, and the router's sentence encoder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim

from edge_export.portable import PortableDecoder

OPSET = 20
# Protobuf ends at 2 GiB; weights beyond this go into a file beside the program.
INLINE_BYTES = 1_800_000_000


def write_onnx(
    module: nn.Module,
    inputs: tuple[Any, ...],
    dynamic_shapes: tuple[Any, ...],
    names: tuple[list[str], list[str]],
    path: Path,
) -> None:
    """The program of `module.forward`; names: of the inputs and of the outputs, flattened."""
    with torch.no_grad():
        program = torch.onnx.export(
            module.eval(),
            inputs,
            dynamo=True,
            dynamic_shapes=dynamic_shapes,
            input_names=names[0],
            output_names=names[1],
            opset_version=OPSET,
            verbose=False,
        )
    assert program is not None
    size = sum(tensor.numel() * tensor.element_size() for tensor in module.state_dict().values())
    program.save(path, external_data=size > INLINE_BYTES)
    with path.open("rb") as file:
        os.fsync(file.fileno())


def export_onnx(
    decoder: PortableDecoder, shapes: list[tuple[int, ...]], dtypes: list[torch.dtype], path: Path
) -> None:
    """The portable anchor; shapes and dtypes: of the memory inputs, whose rows are dynamic."""
    config = decoder.config
    fresh = Dim("tokens", min=1, max=config.context_length)
    kinds = [f"{kind}_{layer}" for layer in range(len(config.layers)) for kind in ("k", "v")]
    shape = (1, config.kv_heads, config.context_length, config.head_dim)
    caches = [torch.zeros(shape) for _ in kinds]
    memory = [
        torch.zeros(layers, parts, 2 + level, width, dtype=dtype)
        for level, ((layers, parts, _, width), dtype) in enumerate(zip(shapes, dtypes, strict=True))
    ]
    rows: list[dict[int, Any]] = [{2: Dim(f"rows_{level}", min=0)} for level in range(len(memory))]
    inputs: tuple[Tensor, Tensor, list[Tensor], list[Tensor]] = (
        torch.zeros(1, 3, dtype=torch.long),
        torch.full((1,), 2),
        caches,
        memory,
    )
    write_onnx(
        decoder,
        inputs,
        ({1: fresh}, None, [None for _ in caches], rows),
        (
            ["tokens", "position", *kinds, *(f"memory_{level}" for level in range(len(memory)))],
            ["logits", *(f"present_{kind}" for kind in kinds)],
        ),
        path,
    )
