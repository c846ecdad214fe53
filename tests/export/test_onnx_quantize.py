"""Quantised ONNX programs of the tiny checkpoint beside its reference, with memory and without."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from safetensors.numpy import load_file

from edge_runtime.bundle import Bundle
from edge_runtime.cli.main import main
from edge_runtime.comparison import compare

# The share of the weights' values that rounding changes by half a step: of 7 bits and of 4.
TOLERANCE = {"int8": 0.25, "8da4w": 1.5}
PRODUCT = {"int8": "MatMulInteger", "8da4w": "MatMulNBits"}
LAYERS, PRODUCTS = 4, 4


@pytest.mark.parametrize("dtype", ["int8", "8da4w"])
def test_quantised_programs(tiny_checkpoint: Path, tmp_path: Path, dtype: str) -> None:
    out = tmp_path / "own.bundle"
    arguments = ["export", str(tiny_checkpoint), "-o", str(out), "--to", "onnx", "--routers", "static"]
    assert main([*arguments, "--anchor-dtype", dtype, "--memory-dtype", "f32"]) == 0
    bundle = Bundle.open(out)
    (program,) = bundle.manifest.programs
    assert program.dtype == dtype
    operators = [node.op_type for node in onnx.load(bundle.path_of(program.path)).graph.node]
    assert sum(name.startswith(PRODUCT[dtype]) for name in operators) == LAYERS * PRODUCTS + 1

    reference = load_file(out / "reference.safetensors")
    spread = reference["logits.none"].std()
    assert np.abs(reference["logits.none"] - reference["logits.path"]).max() > 2 * TOLERANCE[dtype] * spread
    for row in compare(bundle, 2):
        assert row.reason is None
        assert row.max_logit_error is not None
        assert 0 < row.max_logit_error < TOLERANCE[dtype] * spread
