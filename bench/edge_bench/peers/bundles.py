"""The synthetic bundles that our runtime's engines are measured with: one an engine and dtype."""

from __future__ import annotations

from pathlib import Path

from edge_bench.peers.contenders import Plan
from edge_bench.peers.inputs import cached
from edge_bench.synthetic import Synthetic
from edge_runtime.bundle import Bundle


def synthetic_bundle(plan: Plan, model: str, engine: str, dtype: str, memory_dtype: str) -> Bundle:
    """With a bank of two topics: what is measured is one path, and the change to another one."""
    smallest = Synthetic(model, None, memory_dtype, dtype, 0, engine)
    synthetic = Synthetic(model, 2.0 * smallest.least_parameters, memory_dtype, dtype, 0, engine)

    def make(path: Path) -> None:
        plan.say(f"{path.name.partition('.')[0]}: writing a bundle")
        for _ in synthetic.write_bank(path):
            pass
        synthetic.write_rest(path, plan.say)

    key = {
        "synthetic": synthetic.to_json(),
        "anchor": synthetic.anchor.to_manifest(),
        "program": synthetic.program_key(plan.say),
    }
    name = f"{model}-{engine}-{dtype}"
    return Bundle.open(cached(plan.directory, name, key, make))


def path_bytes(bundle: Bundle) -> int:
    """Of one block a level: what a change of topic fetches."""
    assert bundle.manifest.memory is not None
    return sum(level.block_bytes for level in bundle.manifest.memory.levels if level.level > 0)
