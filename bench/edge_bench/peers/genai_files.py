"""A model folder for ONNX Runtime GenAI, made from a program of ours that takes adapters (`onnx_lora`)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

if TYPE_CHECKING:
    from edge_pretrain.model import AnchorConfig

MODEL, CONFIG = "model.onnx", "genai_config.json"


def write_folder(path: Path, program: Path, config: AnchorConfig, threads: int) -> None:
    path.mkdir()
    _write_model(path / MODEL, program)
    (path / CONFIG).write_text(json.dumps(_settings(config, threads), indent=1) + "\n", encoding="utf-8")


def _write_model(path: Path, program: Path) -> None:
    """The program with GenAI's inputs and outputs: positions a token, logits a token, and no memory, which it has no
    input for."""
    model = onnx.load(program)
    graph = model.graph
    for given in [one for one in graph.input if one.name.startswith("memory")]:
        shape = [
            dim.dim_value if dim.HasField("dim_value") else 0 for dim in given.type.tensor_type.shape.dim
        ]
        kind = helper.tensor_dtype_to_np_dtype(given.type.tensor_type.elem_type)
        graph.input.remove(given)
        graph.initializer.append(numpy_helper.from_array(np.zeros(shape, kind), given.name))
    graph.input.remove(next(one for one in graph.input if one.name == "position"))
    graph.input.append(helper.make_tensor_value_info("positions", TensorProto.INT64, [1, "tokens"]))
    for name, values in (("genai.first", [0, 0]), ("genai.behind", [1, 1]), ("genai.one", [1])):
        graph.initializer.append(numpy_helper.from_array(np.array(values, np.int64), name))
    first = [
        helper.make_node("Slice", ["positions", "genai.first", "genai.behind"], ["genai.position"]),
        helper.make_node("Reshape", ["genai.position", "genai.one"], ["position"]),
    ]
    head = next(node for node in graph.node if "logits" in node.output)
    head.output[list(head.output).index("logits")] = "genai.logits"
    nodes = [*first, *graph.node, helper.make_node("Unsqueeze", ["genai.logits", "genai.one"], ["logits"])]
    del graph.node[:]
    graph.node.extend(nodes)
    logits = next(one for one in graph.output if one.name == "logits")
    vocabulary = logits.type.tensor_type.shape.dim[-1].dim_value
    logits.CopyFrom(helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 1, vocabulary]))
    onnx.save(model, path)


def _settings(config: AnchorConfig, threads: int) -> dict[str, object]:
    return {
        "model": {
            "type": "llama",
            "vocab_size": config.vocab_size,
            "context_length": config.context_length,
            "bos_token_id": 0,
            "eos_token_id": 0,
            "pad_token_id": 0,
            "decoder": {
                "filename": MODEL,
                "session_options": {"intra_op_num_threads": threads, "provider_options": []},
                "hidden_size": config.d_model,
                "head_size": config.head_dim,
                "num_attention_heads": config.heads,
                "num_key_value_heads": config.heads,
                "num_hidden_layers": config.layers,
                "inputs": {
                    "input_ids": "tokens",
                    "position_ids": "positions",
                    "past_key_names": "k_%d",
                    "past_value_names": "v_%d",
                },
                "outputs": {
                    "logits": "logits",
                    "present_key_names": "present_k_%d",
                    "present_value_names": "present_v_%d",
                },
            },
        },
        # Its own cache of the whole context: the program's attention appends to it in place.
        "search": {"max_length": config.context_length, "past_present_share_buffer": True},
    }
