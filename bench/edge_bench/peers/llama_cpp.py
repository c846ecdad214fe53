"""llama.cpp, through llama-cpp-python, which builds it for the machine that it is installed on.

Its settings are its own: flash attention where it chooses it, mapped weights, its repacking of rows at load.
"""

from __future__ import annotations

import importlib.util
from dataclasses import asdict
from functools import partial
from pathlib import Path

from edge_bench.banks import PAPER
from edge_bench.peers.contenders import Contender, Plan, versions_of
from edge_bench.peers.dimensions import DOUBLED, anchor, token_bytes
from edge_bench.peers.inputs import cached
from edge_bench.peers.ranks import lora_rank
from edge_runtime.errors import UnsupportedError

DTYPES = {4: "Q4_0", 8: "Q8_0"}
SPENT = {4: 4.5, 8: 8.5}  # bits of a weight, with the scales of groups
MISSING = (
    "llama.cpp is not usable here: {}: pip install 'edge-runtime[peers]', which builds it for some minutes"
)


def contenders(plan: Plan) -> list[Contender]:
    for module in ("llama_cpp", "gguf"):
        if importlib.util.find_spec(module) is None:
            raise UnsupportedError(MISSING.format(f"no module {module}"))
    rows = [(plan.model, bits, False) for bits in DTYPES]
    if plan.model == "160M":
        rows.append((DOUBLED, 4, True))
    return [_contender(plan, *row) for row in rows]


def _contender(plan: Plan, model: str, bits: int, dense: bool) -> Contender:
    from edge_bench.peers.gguf_files import random_weights, write_model

    config, dtype = anchor(model), DTYPES[bits]

    def make(path: Path) -> None:
        plan.say(f"llama.cpp: writing {model} in {dtype}")
        write_model(path, config, dtype, random_weights(0))

    path = cached(plan.directory, f"{model}-{dtype}.gguf", {"anchor": asdict(config), "dtype": dtype}, make)
    adapters = [] if dense else _adapters(plan)
    return Contender(
        peer="llama.cpp",
        quantisation=dtype,
        bits=bits,
        model=model,
        version=versions_of("llama-cpp-python"),
        program=path,
        subject="edge_bench.peers.llama_cpp_worker:LlamaCpp",
        options={"model": str(path), "threads": plan.threads, "context_length": config.context_length},
        swap=None if dense else {"files": [str(one) for one in adapters]},
        swapped="" if dense else "a LoRA adapter, Q8_0",
        swap_bytes=0 if dense else adapters[0].stat().st_size,
        dense=dense,
        token_bytes=token_bytes(model, path.stat().st_size, SPENT[bits]),
    )


def _adapters(plan: Plan) -> list[Path]:
    """Two of about the parameters of a fetched path, in as many bits as its int8."""
    from edge_bench.peers.gguf_files import GROUP, ffn_products, write_lora

    config = anchor(plan.model)
    rank = lora_rank(ffn_products(config), PAPER[plan.model], GROUP)
    return [
        cached(
            plan.directory,
            f"{plan.model}-{seed}.lora.gguf",
            {"anchor": asdict(config), "rank": rank, "seed": seed},
            partial(write_lora, config=config, rank=rank, seed=seed),
        )
        for seed in (1, 2)
    ]
