"""Quantised ONNX programs of a small anchor beside its reference, with memory and without."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from safetensors.numpy import load_file

from edge_export.samples import OWN, write_sample
from edge_runtime.bundle import Bundle
from edge_runtime.cli.main import main
from edge_runtime.comparison import compare

# Of the logits' standard deviation, the largest of 5,120 logits; those of another anchor would be 5 away.
TOLERANCE = {"int8": 0.5, "8da4w": 2.5}
PRODUCT = {"int8": "MatMulInteger", "8da4w": "MatMulNBits"}
LAYERS, PRODUCTS = 2, 4


@pytest.mark.parametrize("dtype", ["int8", "8da4w"])
def test_quantised_programs(tmp_path: Path, dtype: str) -> None:
    checkpoint, _ = write_sample(OWN, tmp_path / "sample")
    out = tmp_path / "own.bundle"
    arguments = ["export", str(checkpoint), "-o", str(out), "--to", "onnx", "--routers", "static"]
    assert main([*arguments, "--anchor-dtype", dtype, "--memory-dtype", "f32"]) == 0
    bundle = Bundle.open(out)
    (program,) = bundle.manifest.programs
    assert program.dtype == dtype
    operators = [node.op_type for node in onnx.load(bundle.path_of(program.path)).graph.node]
    assert sum(name.startswith(PRODUCT[dtype]) for name in operators) == LAYERS * PRODUCTS + 1

    spread = load_file(out / "reference.safetensors")["logits.none"].std()
    for row in compare(bundle, 2):
        assert row.reason is None
        assert row.max_logit_error is not None
        assert 0 < row.max_logit_error < TOLERANCE[dtype] * spread
