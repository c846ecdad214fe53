"""ExecuTorch with XNNPACK: our exported programs, driven through its C++ interface as everywhere in edge_runtime.

It has no call that changes an adapter: one is part of the program, or of a .ptd file, and either way another one means
loading the method anew. The wheel's headers know no .ptd files, so those go through its own Python runtime; that one
has no switch for the cache of packed weights, which our C++ interface turns on, and packs every weight again.
"""

from __future__ import annotations

import shutil
from dataclasses import asdict
from functools import partial
from pathlib import Path

from edge_bench.banks import PAPER
from edge_bench.peers.bundles import synthetic_bundle
from edge_bench.peers.contenders import Contender, Plan, versions_of
from edge_bench.peers.dimensions import anchor
from edge_bench.peers.inputs import cached
from edge_bench.peers.ranks import lora_rank
from edge_runtime import engines

DENSE = "410M"


def contenders(plan: Plan) -> list[Contender]:
    engines.load("executorch")
    rows = [(plan.model, "8da4w", 4)]
    if not plan.quick:
        rows.append((plan.model, "int8", 8))
        if plan.model == "160M":
            rows.append((DENSE, "8da4w", 4))
    return [*(_contender(plan, *row) for row in rows), _with_data(plan)]


def _contender(plan: Plan, model: str, dtype: str, bits: int) -> Contender:
    bundle = synthetic_bundle(plan, model, "executorch", dtype, "i4" if bits == 4 else "i8")
    program = bundle.path_of(bundle.manifest.programs[0].path)
    dense = model != plan.model
    # Other files: what the engine maps cannot be dropped from the page cache.
    copies = [
        cached(
            plan.directory,
            f"{model}-{dtype}-{number}.pte",
            {"copy": str(program)},
            partial(shutil.copyfile, program),
        )
        for number in ((1, 2) if not dense else ())
    ]
    return Contender(
        peer="executorch",
        quantisation=dtype,
        bits=bits,
        model=model,
        version=versions_of("executorch"),
        program=program,
        subject="edge_bench.peers.executorch_worker:ExecuTorchWorker",
        options={"bundle": str(bundle.directory), "engine": "executorch", "threads": plan.threads},
        memory=not dense,
        swap=None if dense else {"files": [str(copy) for copy in copies]},
        swapped="" if dense else "the program, loaded anew",
        swap_bytes=0 if dense else program.stat().st_size,
        dense=dense,
    )


def _with_data(plan: Plan) -> Contender:
    """The program with an adapter in a .ptd file, of about the parameters of a fetched path, a byte each."""
    from edge_bench.peers.executorch_lora import ADAPTERS, PROGRAM, products, write_adapted

    config = anchor(plan.model)
    rank = lora_rank(products(config), PAPER[plan.model])

    def make(path: Path) -> None:
        plan.say(f"executorch: lowering {plan.model} in 8da4w with an adapter: minutes")
        write_adapted(path, config, rank)

    key = {"anchor": asdict(config), "rank": rank, "version": versions_of("executorch", "torchao")}
    folder = cached(plan.directory, f"{plan.model}-8da4w-adapted", key, make)
    files = [folder / name for name in ADAPTERS]
    return Contender(
        peer="executorch",
        quantisation="8da4w, .ptd",
        bits=4,
        model=plan.model,
        version=versions_of("executorch"),
        program=folder / PROGRAM,
        subject="edge_bench.peers.executorch_data_worker:DataWorker",
        options={"program": str(folder / PROGRAM), "threads": plan.threads},
        swap={"files": [str(file) for file in files]},
        swapped="a LoRA adapter, int8, in a .ptd file; the method loaded anew",
        swap_bytes=files[0].stat().st_size,
        swaps_only=True,
    )
