"""Our own engine, and our paging."""

from __future__ import annotations

from edge_bench.peers.bundles import path_bytes, synthetic_bundle
from edge_bench.peers.contenders import Contender, Plan, versions_of
from edge_bench.peers.dimensions import token_bytes

MEMORY = {4: "i4", 8: "i8"}
SPENT = {4: 4.5, 8: 8.0}  # bits of a weight, with the scales of groups


def contenders(plan: Plan) -> list[Contender]:
    found = []
    for bits, dtype in MEMORY.items():
        bundle = synthetic_bundle(plan, plan.model, "native", dtype, dtype)
        program = bundle.path_of(bundle.manifest.programs[0].path)
        found.append(
            Contender(
                peer="native",
                quantisation=dtype,
                bits=bits,
                model=plan.model,
                version=versions_of("edge-runtime"),
                program=program,
                subject="edge_bench.peers.engine_worker:EngineWorker",
                options={
                    "bundle": str(bundle.directory),
                    "engine": "native",
                    "threads": plan.threads,
                },
                memory=True,
                token_bytes=token_bytes(plan.model, program.stat().st_size, SPENT[bits]),
                swap={},
                swapped=f"a path of FFN memory, {dtype}",
                swap_bytes=path_bytes(bundle),
            )
        )
    return found
