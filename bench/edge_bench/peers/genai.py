"""ONNX Runtime GenAI: its `Adapters`, on the program and the adapters that ONNX Runtime itself is measured with."""

from __future__ import annotations

import importlib.util
from functools import partial
from shutil import copyfile

from edge_bench.peers.contenders import Contender, Plan, versions_of
from edge_bench.peers.dimensions import anchor
from edge_bench.peers.inputs import cached
from edge_bench.peers.onnxruntime import adapted_program
from edge_runtime import engines
from edge_runtime.errors import UnsupportedError


def contenders(plan: Plan) -> list[Contender]:
    if importlib.util.find_spec("onnxruntime_genai") is None:
        raise UnsupportedError("no module onnxruntime_genai: pip install onnxruntime-genai==0.18.0")
    engines.load("onnx")
    from edge_bench.peers.genai_files import MODEL, write_folder

    program, *shared = adapted_program(plan)
    # Files of its own: what ONNX Runtime's process maps cannot be dropped from the page cache.
    adapters = [
        cached(
            plan.directory,
            f"{plan.model}-genai-{one}.onnx_adapter",
            {"copy": str(file)},
            partial(copyfile, file),
        )
        for one, file in enumerate(shared, start=1)
    ]
    folder = cached(
        plan.directory,
        f"{plan.model}-genai",
        {"program": str(program), "threads": plan.threads},
        partial(write_folder, program=program, config=anchor(plan.model), threads=plan.threads),
    )
    return [
        Contender(
            peer="onnxruntime-genai",
            quantisation="8da4w",
            bits=4,
            model=plan.model,
            version=versions_of("onnxruntime-genai"),
            program=folder / MODEL,
            subject="edge_bench.peers.genai_worker:GenAiWorker",
            options={"folder": str(folder)},
            swap={"files": [str(file) for file in adapters]},
            swapped="a LoRA adapter, int8",
            swap_bytes=adapters[0].stat().st_size,
            swaps_only=True,
        )
    ]
