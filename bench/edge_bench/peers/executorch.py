"""ExecuTorch with XNNPACK: our exported programs, driven through its C++ interface as everywhere in edge_runtime.

It has no call that changes an adapter: one is part of the program, or of a .ptd file that the program names, and either
way another one means loading the method anew, which packs every weight again.
"""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path

from edge_bench.peers.bundles import synthetic_bundle
from edge_bench.peers.contenders import Contender, Plan, versions_of
from edge_bench.peers.inputs import cached
from edge_runtime import engines

DENSE = "410M"


def contenders(plan: Plan) -> list[Contender]:
    engines.load("executorch")
    rows = [(plan.model, "8da4w", 4)]
    if not plan.quick:
        rows.append((plan.model, "int8", 8))
        if plan.model == "160M":
            rows.append((DENSE, "8da4w", 4))
    return [_contender(plan, *row) for row in rows]


def _contender(plan: Plan, model: str, dtype: str, bits: int) -> Contender:
    bundle = synthetic_bundle(plan, model, "executorch", dtype, "i4" if bits == 4 else "i8")
    program = bundle.path_of(bundle.manifest.programs[0].path)
    dense = model != plan.model
    copy = program
    if not dense:
        # Another file: what the loaded program maps cannot be dropped from the page cache.
        key = {"copy": str(program)}
        copy = cached(plan.directory, f"{model}-{dtype}.pte", key, partial(shutil.copyfile, program))
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
        swap=None if dense else {"files": [str(program), str(copy)]},
        swapped="" if dense else "the program, loaded anew",
        swap_bytes=0 if dense else Path(copy).stat().st_size,
        dense=dense,
    )
