"""Lowers modules to ExecuTorch programs with the XNNPACK backend."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from executorch.backends.xnnpack.partition.config.xnnpack_config import ConfigPrecisionType
from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
from executorch.backends.xnnpack.xnnpack_preprocess import XnnpackBackend
from executorch.exir import EdgeCompileConfig, ExecutorchBackendConfig, to_edge
from executorch.exir.backend.compile_spec_schema import CompileSpec
from executorch.exir.backend.partitioner import DelegationSpec
from executorch.exir.passes import MemoryPlanningPass
from executorch.exir.passes.sym_shape_eval_pass import ConstraintBasedSymShapeEvalPass
from torch import nn
from torch.export import Dim

from edge_export.decoder import PagedDecoder, PortableCachedDecoder
from edge_export.lazily import lazily_compiled


def lower(
    module: nn.Module,
    inputs: tuple[torch.Tensor, ...],
    dynamic_shapes: tuple[Any, ...],
    path: Path,
    borrow_inputs: bool = False,
) -> None:
    """Writes the program of `module.forward` to `path`; its products may be quantised (`edge_export.quantize`).

    inputs: examples. dynamic_shapes: as torch.export.export takes them. Tensors of a dynamic shape are planned for
    its upper bound. borrow_inputs: the program reads inputs where the caller has them, instead of copying them first.

    The two steps of `to_edge_transform_and_lower`, called one by one: that function decomposes the whole program
    again for each partitioner, three times each, which doubles the time and changes nothing here.
    """
    with torch.no_grad():
        program = torch.export.export(module.eval(), inputs, dynamic_shapes=dynamic_shapes, strict=False)
        rest = XnnpackPartitioner()
        kept, _ = rest.ops_to_not_decompose(program)
        edge = to_edge(
            program,
            # Custom operators are not in the core ATen set that the validity check asks for.
            compile_config=EdgeCompileConfig(
                _check_ir_validity=False, _skip_dim_order=True, preserve_ops=list(kept)
            ),
        )
        with lazily_compiled():
            for partitioner in (_quantised_products(), rest):
                edge = edge.to_backend(partitioner)
        lowered = edge.to_executorch(
            ExecutorchBackendConfig(
                sym_shape_eval_pass=ConstraintBasedSymShapeEvalPass(),
                memory_planning_pass=MemoryPlanningPass(alloc_graph_input=not borrow_inputs),
            )
        )
    with path.open("wb") as file:
        lowered.write_to_file(file)
        file.flush()
        os.fsync(file.fileno())


def _quantised_products() -> XnnpackPartitioner:
    """Takes each product whose activations are quantised at run time as a delegate of its own."""
    partitioner = XnnpackPartitioner(config_precisions=ConfigPrecisionType.DYNAMIC_QUANT, per_op_mode=True)
    # Tells the backend that a delegate is one product: it then skips 16 passes over each, most of the time it takes.
    spec = CompileSpec("dqlinear_partitioner", b"")
    partitioner.delegation_spec = DelegationSpec(XnnpackBackend.__name__, [spec])
    return partitioner


def export_paged(decoder: PagedDecoder, max_prefill: int, path: Path) -> None:
    """The paged flavour of an anchor, for 1 <= T <= max_prefill tokens a call."""
    tokens, position = _tokens(max_prefill)
    inputs = (tokens, position, torch.zeros(1, dtype=torch.long))
    lower(decoder, inputs, ({1: Dim("tokens", min=1, max=max_prefill)}, None, None), path)


def export_portable(
    decoder: PortableCachedDecoder, shapes: list[tuple[int, ...]], max_prefill: int, path: Path
) -> None:
    """The portable flavour of an anchor; shapes: of each memory input."""
    tokens, position = _tokens(max_prefill)
    memory = tuple(torch.zeros(shape) for shape in shapes)
    if decoder.memory.kind == "kv":
        memory = (*memory, torch.zeros(len(shapes)))
    dynamic = ({1: Dim("tokens", min=1, max=max_prefill)}, None, tuple(None for _ in memory))
    lower(decoder, (tokens, position, *memory), dynamic, path, borrow_inputs=True)


def _tokens(max_prefill: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Examples of the inputs that the flavours share."""
    return torch.zeros(1, max(2, max_prefill // 2), dtype=torch.long), torch.zeros(1, dtype=torch.long)
