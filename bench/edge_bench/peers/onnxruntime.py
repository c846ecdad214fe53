"""ONNX Runtime: our exported programs, and its own LoRA adapters, which are what GenAI's `Adapters` load, too."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from edge_bench.banks import PAPER
from edge_bench.peers.bundles import synthetic_bundle
from edge_bench.peers.contenders import Contender, Plan, versions_of
from edge_bench.peers.dimensions import anchor
from edge_bench.peers.inputs import cached
from edge_bench.peers.ranks import lora_rank
from edge_runtime import engines
from edge_runtime.bundle import Bundle

DTYPES = {4: "8da4w", 8: "int8"}


def contenders(plan: Plan) -> list[Contender]:
    engines.load("onnx")
    return [_contender(plan, bits) for bits in DTYPES]


def _contender(plan: Plan, bits: int) -> Contender:
    bundle, program = _program(plan, bits)
    # The 4-bit program alone takes adapters: what swapping one costs does not depend on the anchor's dtype.
    files = adapted_program(plan) if bits == 4 else []
    return Contender(
        peer="onnxruntime",
        quantisation=DTYPES[bits],
        bits=bits,
        model=plan.model,
        version=versions_of("onnxruntime"),
        program=program,
        subject="edge_bench.peers.onnxruntime_worker:OnnxRuntimeWorker",
        options={"bundle": str(bundle.directory), "engine": "onnx", "threads": plan.threads},
        memory=True,
        swap={"files": [str(file) for file in files]} if files else None,
        swapped="a LoRA adapter, int8" if files else "",
        swap_bytes=files[-1].stat().st_size if files else 0,
    )


def _program(plan: Plan, bits: int) -> tuple[Bundle, Path]:
    bundle = synthetic_bundle(plan, plan.model, "onnx", DTYPES[bits], "i4" if bits == 4 else "i8")
    return bundle, bundle.path_of(bundle.manifest.programs[0].path)


def adapted_program(plan: Plan) -> list[Path]:
    """The 4-bit program that takes adapters, and two of about the parameters of a fetched path, a byte each."""
    from edge_bench.peers.onnx_lora import ffn_products, write_adapter, write_program

    program = _program(plan, 4)[1]
    config = anchor(plan.model)
    products = ffn_products(program, config)
    rank = lora_rank(products, PAPER[plan.model])
    key = {"program": str(program)}
    made = [
        cached(
            plan.directory,
            f"{plan.model}-lora.onnx",
            key,
            partial(write_program, program=program, config=config),
        )
    ]
    for seed in (1, 2):
        write = partial(write_adapter, products=products, rank=rank, seed=seed)
        name = f"{plan.model}-{seed}.onnx_adapter"
        made.append(cached(plan.directory, name, {"products": products, "rank": rank, "seed": seed}, write))
    return made
