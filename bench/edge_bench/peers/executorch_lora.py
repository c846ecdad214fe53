"""A program for ExecuTorch with a LoRA adapter whose weights lie in a .ptd file of their own (program-data separation).

XNNPACK finds a constant by the digest of what it held at lowering, so the file of another adapter is one with the same
names: a copy serves, since nothing is shared between two loaded programs here.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, cast

import executorch.extension.llm.custom_ops.custom_ops  # noqa: F401  # registers llama::*
import torch
from executorch.backends.xnnpack.partition.config.xnnpack_config import ConfigPrecisionType
from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
from executorch.backends.xnnpack.xnnpack_preprocess import XnnpackBackend
from executorch.exir import EdgeCompileConfig, ExecutorchBackendConfig, to_edge
from executorch.exir.backend.compile_spec_schema import CompileSpec
from executorch.exir.backend.partitioner import DelegationSpec
from executorch.exir.passes.sym_shape_eval_pass import ConstraintBasedSymShapeEvalPass
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torchao.quantization import Int8DynamicActivationIntxWeightConfig, quantize_
from torchao.quantization.granularity import PerAxis

from edge_bench.programs import random_anchor
from edge_export.decoder import CachedDecoder
from edge_export.openlm import from_anchor
from edge_export.quantize import quantize_decoder
from edge_export.quiet import quiet_libraries
from edge_pretrain.memory_types import NO_MEMORY
from edge_pretrain.model import AnchorConfig

PROGRAM, ADAPTERS = "program.pte", ("1.ptd", "2.ptd")
TAG, MAX_PREFILL = "adapter", 128


class _Adapted(nn.Module):
    """A product with an adapter in int8 beside it, a byte a parameter as in our int8 memory."""

    def __init__(self, base: nn.Linear, rank: int) -> None:
        super().__init__()
        self.base = base
        self.lora = nn.Sequential(
            nn.Linear(base.in_features, rank, bias=False), nn.Linear(rank, base.out_features, bias=False)
        ).eval()
        quantize_(
            self.lora,
            Int8DynamicActivationIntxWeightConfig(weight_dtype=torch.int8, weight_granularity=PerAxis(0)),
        )

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.base(x) + self.lora(x))


class _Decoder(CachedDecoder):
    def forward(self, tokens: Tensor, position: Tensor) -> Tensor:
        return self.run(tokens, position, lambda layer: NO_MEMORY)


def products(config: AnchorConfig) -> list[tuple[int, int]]:
    """(in, out) of the FFNs' products of all layers, as the exporter makes them."""
    return [(config.d_model, 2 * config.ffn_dim), (config.ffn_dim, config.d_model)] * config.layers


def write_adapted(path: Path, config: AnchorConfig, rank: int) -> None:
    """A folder with PROGRAM in 8da4w and ADAPTERS."""
    torch.manual_seed(0)
    decoder = from_anchor(random_anchor(config, 0))
    with quiet_libraries(), torch.no_grad():
        quantize_decoder(decoder, "8da4w")
        for block in decoder.blocks:
            ffn = cast(Any, block).feed_forward
            ffn.w12, ffn.w3 = _Adapted(ffn.w12, rank), _Adapted(ffn.w3, rank)
        most = min(MAX_PREFILL, config.context_length)
        inputs = (torch.zeros(1, most // 2, dtype=torch.long), torch.zeros(1, dtype=torch.long))
        exported = torch.export.export(
            _Decoder(decoder).eval(),
            inputs,
            dynamic_shapes=({1: Dim("tokens", min=1, max=most)}, None),
            strict=False,
        )
        lowered = _lower(exported)
    path.mkdir()
    with (path / PROGRAM).open("wb") as file:
        lowered.write_to_file(file)
    lowered.write_tensor_data_to_file(str(path))
    (path / f"{TAG}.ptd").replace(path / ADAPTERS[0])
    shutil.copyfile(path / ADAPTERS[0], path / ADAPTERS[1])


def _lower(exported: ExportedProgram) -> Any:
    """With the adapter's weights outside of the program."""
    rest = XnnpackPartitioner()
    kept, _ = rest.ops_to_not_decompose(exported)
    edge = to_edge(
        exported,
        compile_config=EdgeCompileConfig(
            _check_ir_validity=False, _skip_dim_order=True, preserve_ops=list(kept)
        ),
    )
    for node in edge.exported_program().graph.nodes:
        # XNNPACK looks for the tag where a weight becomes one: at what dequantises it.
        if any(one.op == "placeholder" and "_lora_" in one.name for one in node.all_input_nodes):
            node.meta.setdefault("custom", {})["delegate_constant_tag"] = TAG
    # As our exporter lowers: each product a delegate of its own.
    dynamic = XnnpackPartitioner(config_precisions=ConfigPrecisionType.DYNAMIC_QUANT, per_op_mode=True)
    spec = CompileSpec("dqlinear_partitioner", b"")
    dynamic.delegation_spec = DelegationSpec(XnnpackBackend.__name__, [spec])
    for partitioner in (dynamic, rest):
        edge = edge.to_backend(partitioner)
    return edge.to_executorch(ExecutorchBackendConfig(sym_shape_eval_pass=ConstraintBasedSymShapeEvalPass()))
