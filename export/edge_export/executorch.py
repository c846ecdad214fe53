"""Lowers modules to ExecuTorch programs with the XNNPACK backend."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from executorch.backends.xnnpack.partition.config.xnnpack_config import ConfigPrecisionType
from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
from executorch.exir import EdgeCompileConfig, ExecutorchBackendConfig, to_edge_transform_and_lower
from executorch.exir.passes.sym_shape_eval_pass import ConstraintBasedSymShapeEvalPass
from torch import nn
from torch.export import Dim

from edge_export.decoder import PagedDecoder


def lower(
    module: nn.Module,
    inputs: tuple[torch.Tensor, ...],
    dynamic_shapes: tuple[Any, ...],
    path: Path,
    dynamic_quantisation: bool = False,
) -> None:
    """Writes the program of `module.forward` to `path`.

    inputs: examples. dynamic_shapes: as torch.export.export takes them. Tensors of a dynamic shape are planned for
    its upper bound. dynamic_quantisation: the module's linear layers quantise their inputs as they come.
    """
    partitioners = [XnnpackPartitioner()]
    if dynamic_quantisation:
        # First and one operator at a time: the plain partitioner would take the quantisation for static.
        dynamic = XnnpackPartitioner(config_precisions=ConfigPrecisionType.DYNAMIC_QUANT, per_op_mode=True)
        partitioners.insert(0, dynamic)
    with torch.no_grad():
        program = torch.export.export(module.eval(), inputs, dynamic_shapes=dynamic_shapes, strict=False)
        edge = to_edge_transform_and_lower(
            program,
            partitioner=partitioners,
            # Custom operators are not in the core ATen set that the validity check asks for.
            compile_config=EdgeCompileConfig(_check_ir_validity=False, _skip_dim_order=True),
        )
        lowered = edge.to_executorch(
            ExecutorchBackendConfig(sym_shape_eval_pass=ConstraintBasedSymShapeEvalPass())
        )
    with path.open("wb") as file:
        lowered.write_to_file(file)
        file.flush()
        os.fsync(file.fileno())


def export_paged(decoder: PagedDecoder, max_prefill: int, path: Path) -> None:
    """The paged flavour of an anchor, for 1 <= T <= max_prefill tokens a call."""
    inputs = (
        torch.zeros(1, max(2, max_prefill // 2), dtype=torch.long),
        torch.zeros(1, dtype=torch.long),
        torch.zeros(1, dtype=torch.long),
    )
    lower(decoder, inputs, ({1: Dim("tokens", min=1, max=max_prefill)}, None, None), path)
