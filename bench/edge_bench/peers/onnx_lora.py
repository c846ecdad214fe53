"""LoRA for ONNX Runtime: a program of ours with an int8 adapter in the FFN's products, and adapter files to it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from edge_runtime.errors import BadFormatError

if TYPE_CHECKING:
    from edge_pretrain.model import AnchorConfig

SCALE = "lora.scale"
Product = tuple[int, int]
"""In, out."""


def _product(node: onnx.NodeProto, config: AnchorConfig) -> Product | None:
    """Of an FFN, whose first two products the exporter may have made one; None for another node."""
    if node.op_type != "MatMulNBits":
        return None
    size = {attribute.name: int(attribute.i) for attribute in node.attribute}
    found, d, ffn = (size["K"], size["N"]), config.d_model, config.ffn_dim
    return found if found in ((d, ffn), (d, 2 * ffn), (ffn, d)) else None


def ffn_products(program: Path, config: AnchorConfig) -> list[Product]:
    """In the program's order. BadFormatError where layers have none, or not alike: it is no 4-bit program."""
    nodes = onnx.load(program, load_external_data=False).graph.node
    found = [product for node in nodes if (product := _product(node, config)) is not None]
    if not found or len(found) % config.layers:
        raise BadFormatError(f"{program}: {len(found)} products of FFNs in {config.layers} layers")
    return found


def _names(index: int) -> tuple[str, str]:
    return f"lora.{index}.a", f"lora.{index}.b"


def write_program(path: Path, program: Path, config: AnchorConfig) -> None:
    """The program with optional inputs for an adapter of any rank; without one it is not to be run."""
    model = onnx.load(program)
    graph = model.graph
    graph.initializer.append(numpy_helper.from_array(np.array(1e-3, np.float32), SCALE))
    nodes: list[onnx.NodeProto] = []
    index = 0
    for node in graph.node:
        nodes.append(node)
        product = _product(node, config)
        if product is None:
            continue
        a, b = _names(index)
        rank, index = f"lora.{index}.rank", index + 1
        for name, shape, empty in (
            (a, [product[0], rank], (product[0], 0)),
            (b, [rank, product[1]], (0, product[1])),
        ):
            graph.input.append(helper.make_tensor_value_info(name, TensorProto.INT8, shape))
            graph.initializer.append(numpy_helper.from_array(np.zeros(empty, np.int8), name))
        x, y = node.input[0], node.output[0]
        node.output[0] = f"{a}.base"
        nodes += [_quantised(x, a), _quantised(f"{a}.product", b)]
        nodes.append(helper.make_node("Add", [f"{a}.base", f"{b}.product"], [y]))
    del graph.node[:]
    graph.node.extend(nodes)
    onnx.save(model, path)


def _quantised(x: str, weight: str) -> onnx.NodeProto:
    """Its activations are quantised as they come, as the anchor's are."""
    domain = "com.microsoft"
    return helper.make_node("DynamicQuantizeMatMul", [x, weight, SCALE], [f"{weight}.product"], domain=domain)


def write_adapter(path: Path, products: list[Product], rank: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    values = {}
    for index, (into, out) in enumerate(products):
        for name, shape in zip(_names(index), ((into, rank), (rank, out)), strict=True):
            values[name] = random.integers(-127, 128, shape).astype(np.int8)
    adapter = onnxruntime.AdapterFormat()
    adapter.set_adapter_version(1)
    adapter.set_model_version(1)
    adapter.set_parameters(
        {name: onnxruntime.OrtValue.ortvalue_from_numpy(value) for name, value in values.items()}
    )
    adapter.export_adapter(str(path))
