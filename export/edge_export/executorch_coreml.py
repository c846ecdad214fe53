"""Lowers anchors to ExecuTorch programs whose one delegate is Core ML's: the whole graph, the KV cache as its states.

It takes one token a call, because of what Core ML and its delegate allow together: states are of one method, so that a
prefill of its own would fill a cache that no other method sees; and a program with states takes no inputs of a dynamic
shape beside fixed ones, which memory's are (github.com/apple/coremltools/issues/2548).
"""

from __future__ import annotations

import copy
import os
from pathlib import Path
from typing import Any, cast

import coremltools as ct
import torch
from executorch.backends.apple.coreml import executorchcoreml
from executorch.backends.apple.coreml.compiler import CoreMLBackend
from executorch.backends.apple.coreml.partition import CoreMLPartitioner
from executorch.exir import EdgeCompileConfig, to_edge_transform_and_lower
from executorch.exir._serialize._program import deserialize_pte_binary
from torch import Tensor, nn

from edge_export.coreml import CoremlDecoder, quantizer
from edge_export.model import Decoder

MAX_PREFILL = 1
PATH = "anchor.coreml.pte"


class DelegatedDecoder(CoremlDecoder):
    """As `CoremlDecoder`, with the arguments of portable ExecuTorch programs (docs/bundle-format.md)."""

    def forward(self, tokens: Tensor, position: Tensor, *memory: Tensor) -> Tensor:
        """Logits [1, vocab_size]. tokens: i64 [1, 1]. position: i64 [1]. memory: of each level f32."""
        # One token, so that its position is all positions.
        return super().forward(tokens, position.to(torch.int32), *memory)


class _OwnTable(nn.Module):
    """An embedding whose table is twice the weights, halved again, which is exact. The delegate compresses products and
    no gathers, and refuses to where both read one constant, as tied weights are; equal constants would become one."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.register_buffer("table", 2 * weight, persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        table = cast(Tensor, self.table)
        return nn.functional.embedding(tokens, table) * 0.5


def with_own_table(decoder: Decoder) -> Decoder:
    """The decoder with a table of its own for tied weights; it shares the rest."""
    if not decoder.config.tied_embeddings:
        return decoder
    found = copy.copy(decoder)
    found._modules = dict(decoder._modules)
    found.tok_embeddings = _OwnTable(cast(nn.Embedding, decoder.tok_embeddings).weight.detach())
    return found


def export_delegated(
    decoder: DelegatedDecoder, shapes: list[tuple[int, ...]], dtype: str, path: Path
) -> None:
    """The program of an anchor. shapes, dtype: as `export_coreml`."""
    inputs = (
        torch.zeros(1, 1, dtype=torch.long),
        torch.zeros(1, dtype=torch.long),
        *(torch.zeros(shape) for shape in shapes),
    )
    with torch.no_grad():
        program = torch.export.export(decoder.eval(), inputs, strict=False)
    lowered = to_edge_transform_and_lower(
        program,
        partitioner=[CoreMLPartitioner(compile_specs=_specs(decoder, dtype), lower_full_graph=True)],
        compile_config=EdgeCompileConfig(_check_ir_validity=False, _skip_dim_order=True),
    ).to_executorch()
    with path.open("wb") as file:
        lowered.write_to_file(file)
        file.flush()
        os.fsync(file.fileno())


def _specs(decoder: DelegatedDecoder, dtype: str) -> list[Any]:
    # A spec names one precision for all: RMSNorm's squares leave fp16's range (`edge_export.coreml`).
    exact = decoder.config.norm == "rmsnorm"
    found: list[Any] = CoreMLBackend.generate_compile_specs(
        minimum_deployment_target=ct.target.iOS18,
        compute_precision=ct.precision.FLOAT32 if exact else ct.precision.FLOAT16,
        op_linear_quantizer_config=None if dtype == "f16" else quantizer(dtype),
    )
    return found


def embedded_package(program: Path, folder: Path) -> Path:
    """Unpacks the Core ML package of a program's delegate into `folder`."""
    found = deserialize_pte_binary(program.read_bytes()).program
    ((delegate,),) = [plan.delegates for plan in found.execution_plan]
    assert delegate.id == CoreMLBackend.__name__
    data = found.backend_delegate_data[delegate.processed.index].data
    folder.mkdir(exist_ok=True)
    executorchcoreml.unflatten_directory_contents(data, str(folder))
    (package,) = folder.rglob("model.mlpackage")
    return package
