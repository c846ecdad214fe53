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


def parameters(config: AnchorConfig, rank: int) -> dict[str, tuple[int, int]]:
    """Shapes, by the names of the program's inputs: A and B of the products in the program's order."""
    d, ffn = config.d_model, config.ffn_dim
    shapes = {}
    for index in range(config.layers):
        for part, (into, out) in (("w1", (d, ffn)), ("w2", (d, ffn)), ("w3", (ffn, d))):
            shapes[f"lora.{index}.{part}.a"] = (into, rank)
            shapes[f"lora.{index}.{part}.b"] = (rank, out)
    return shapes


def write_program(path: Path, program: Path, config: AnchorConfig) -> None:
    """The 4-bit program with optional inputs for an adapter of any rank; without one it is not to be run.

    Raises BadFormatError where the program's FFN products are not MatMulNBits of the anchor's sizes.
    """
    model = onnx.load(program)
    graph = model.graph
    graph.initializer.append(numpy_helper.from_array(np.array(1e-3, np.float32), SCALE))
    names = iter(parameters(config, 0))
    sizes = {(config.d_model, config.ffn_dim), (config.ffn_dim, config.d_model)}
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        nodes.append(node)
        if node.op_type != "MatMulNBits":
            continue
        size = {attribute.name: attribute.i for attribute in node.attribute}
        if (size["K"], size["N"]) not in sizes:
            continue
        a, b = next(names, None), next(names, None)
        if a is None or b is None:
            break
        rank = f"{a}.rank"
        for name, shape in ((a, [size["K"], rank]), (b, [rank, size["N"]])):
            empty = np.zeros([0 if dim == rank else dim for dim in shape], np.int8)
            graph.input.append(helper.make_tensor_value_info(name, TensorProto.INT8, shape))
            graph.initializer.append(numpy_helper.from_array(empty, name))
        x, y = node.input[0], node.output[0]
        node.output[0] = f"{a}.base"
        nodes += [
            helper.make_node(
                "DynamicQuantizeMatMul", [x, a, SCALE], [f"{a}.product"], domain="com.microsoft"
            ),
            helper.make_node(
                "DynamicQuantizeMatMul", [f"{a}.product", b, SCALE], [f"{b}.product"], domain="com.microsoft"
            ),
            helper.make_node("Add", [f"{a}.base", f"{b}.product"], [y]),
        ]
    if next(names, None) is not None or len(nodes) != len(graph.node) + 9 * config.layers:
        raise BadFormatError(f"{program}: it has not three MatMulNBits of an FFN in each layer")
    del graph.node[:]
    graph.node.extend(nodes)
    onnx.save(model, path)


def write_adapter(path: Path, config: AnchorConfig, rank: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    adapter = onnxruntime.AdapterFormat()
    adapter.set_adapter_version(1)
    adapter.set_model_version(1)
    values = {
        name: random.integers(-127, 128, shape).astype(np.int8)
        for name, shape in parameters(config, rank).items()
    }
    adapter.set_parameters(
        {name: onnxruntime.OrtValue.ortvalue_from_numpy(value) for name, value in values.items()}
    )
    adapter.export_adapter(str(path))
