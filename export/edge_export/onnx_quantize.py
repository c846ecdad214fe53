"""Quantised ONNX programs; the dtypes are those of `edge_export.quantize`, whose accuracy they come to.

    int8    products int8, a scale a column, by dynamic quantisation (MatMulInteger)
    8da4w   products int4 in groups of 32, activations int8 (MatMulNBits, accuracy level 4)

The embedding is int8, a scale a row, before the program is written (`edge_export.embedder`). Products of two inputs,
the attention's and the memory's, stay as they are.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer
from torch import nn

from edge_export.embedder import Int8Embedding
from edge_export.model import Decoder

GROUP = 32
INT8_ACTIVATIONS = 4
"""The accuracy level of MatMulNBits."""


def with_int8_embedding(decoder: Decoder) -> Decoder:
    """The decoder with another table; it shares the rest."""
    found = copy.copy(decoder)
    found._modules = dict(decoder._modules)
    assert isinstance(decoder.tok_embeddings, nn.Embedding)
    found.tok_embeddings = Int8Embedding(decoder.tok_embeddings.weight.detach())
    return found


def quantize_onnx(path: Path, dtype: str) -> None:
    """Replaces the program by its quantised one. dtype: int8 or 8da4w."""
    model = onnx.load(path)
    _products_of_gemms(model)
    if dtype == "8da4w":
        quantizer: Any = MatMulNBitsQuantizer(
            model,
            bits=4,
            block_size=GROUP,
            is_symmetric=True,
            accuracy_level=INT8_ACTIVATIONS,
            op_types_to_quantize=("MatMul",),
        )
        quantizer.process()
        quantizer.model.save_model_to_file(str(path))
    else:
        # reduce_range: without VNNI, pairs of full int8 products overflow the 16 bits that AVX2 adds them in.
        quantize_dynamic(
            model, path, ["MatMul"], per_channel=True, reduce_range=True, weight_type=QuantType.QInt8
        )


def _products_of_gemms(model: ModelProto) -> None:
    """The head is a Gemm, x W^T, of the last token; quantisation knows MatMul only."""
    tables = {table.name: table for table in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Gemm" and node.input[1] in tables:
            assert len(node.input) == 2
            assert any(option.name == "transB" and option.i == 1 for option in node.attribute)
            weight_name = node.input[1]
            weight = np.ascontiguousarray(numpy_helper.to_array(tables[weight_name]).T)
            name = f"{weight_name}.transposed"
            model.graph.initializer.append(numpy_helper.from_array(weight, name))
            node.CopyFrom(helper.make_node("MatMul", [node.input[0], name], list(node.output), node.name))
            model.graph.initializer.remove(tables[weight_name])
