"""Runs a saved Core ML package on any machine: its MIL program, operation by operation, in numpy.

Constant folding of coremltools (`value_inference`) computes most operations; the rest stands below. It is made to check
packages, not to answer with them: values are of the program's types, fp16 mostly, and sums are numpy's.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import coremltools as ct
import numpy as np
from coremltools.converters.mil.frontend.milproto.load import load as load_program

Values = dict[str, Any]


def _slice_update(v: Values) -> Any:
    out = v["x"].copy()
    out[tuple(slice(b, e) for b, e in zip(v["begin"], v["end"], strict=True))] = v["update"]
    return out


def _scatter_nd(v: Values) -> Any:
    out = v["data"].copy()
    out[tuple(np.moveaxis(v["indices"], -1, 0))] = v["updates"]
    return out


def _softmax(v: Values) -> Any:
    e = np.exp(v["x"] - v["x"].max(v["axis"], keepdims=True))
    return e / e.sum(v["axis"], keepdims=True)


def _reduce(name: str) -> Any:
    def run(v: Values) -> Any:
        axes = v.get("axes")
        return getattr(np, name)(
            v["x"], axis=None if axes is None else tuple(axes), keepdims=bool(v["keep_dims"])
        )

    return run


def _linear(v: Values) -> Any:
    return v["x"] @ v["weight"].T + v.get("bias", 0)


def _matmul(v: Values) -> Any:
    x = v["x"].swapaxes(-1, -2) if v.get("transpose_x") else v["x"]
    y = v["y"].swapaxes(-1, -2) if v.get("transpose_y") else v["y"]
    return x @ y


def _layer_norm(v: Values) -> Any:
    x, axes = v["x"], tuple(v["axes"])
    centred = x - x.mean(axes, keepdims=True)
    scaled = centred / np.sqrt(np.square(centred).mean(axes, keepdims=True) + v["epsilon"])
    return (scaled * v.get("gamma", 1) + v.get("beta", 0)).astype(x.dtype)


# Those whose own inference asks for static shapes.
def _reshape(v: Values) -> Any:
    x, shape = v["x"], list(v["shape"])
    return x.reshape([x.shape[i] if size == 0 else size for i, size in enumerate(shape)])


def _split(v: Values) -> Any:
    axis, sizes = int(v["axis"]), v.get("split_sizes")
    if sizes is None:
        return np.split(v["x"], int(v["num_splits"]), axis)
    return np.split(v["x"], np.cumsum(sizes)[:-1], axis)


OPERATIONS = {
    "expand_dims": lambda v: np.expand_dims(v["x"], tuple(v["axes"])),
    "squeeze": lambda v: np.squeeze(v["x"], tuple(v["axes"])),
    "select": lambda v: np.where(v["cond"], v["a"], v["b"]),
    "gather": lambda v: np.take(v["x"], v["indices"].astype(np.int64), int(v["axis"])),
    "tile": lambda v: np.tile(v["x"], v["reps"]),
    "reshape": _reshape,
    "shape": lambda v: np.array(v["x"].shape, np.int32),
    "split": _split,
    "silu": lambda v: v["x"] / (1 + np.exp(-v["x"])),
    "softmax": _softmax,
    "reduce_mean": _reduce("mean"),
    "reduce_sum": _reduce("sum"),
    "reduce_max": _reduce("max"),
    "layer_norm": _layer_norm,
    "linear": _linear,
    "matmul": _matmul,
    "scatter_nd": _scatter_nd,
    "slice_update": _slice_update,
}


class Package:
    """A loaded package with states of its own, which its functions share."""

    def __init__(self, path: Path) -> None:
        model = ct.models.MLModel(str(path), skip_model_load=True)
        program = load_program(
            model.get_spec(), model.get_spec().specificationVersion, file_weights_dir=model.weights_dir
        )
        self.functions: dict[str, Any] = program.functions
        self.states: Values = {}

    def run(self, name: str, **inputs: Any) -> Values:
        """The outputs of a function by name."""
        values, function = dict(inputs), self.functions[name]
        for operation in function.operations:
            given = {
                name: self._value(var, values) for name, var in operation.inputs.items() if var is not None
            }
            kind = operation.op_type
            if kind == "read_state":
                var = operation.inputs["input"]
                if var.name not in self.states:
                    self.states[var.name] = np.zeros(var.shape, np.float16)
                found = self.states[var.name]
            elif kind == "coreml_update_state":
                self.states[operation.inputs["state"].name] = found = given["value"]
            elif kind == "const":
                found = operation.outputs[0].val
            elif kind.startswith("constexpr_"):
                found = operation.materialized_val_inference()
            elif kind in OPERATIONS:
                found = OPERATIONS[kind](given)
            else:
                found = self._inferred(operation, given)
            results = found if len(operation.outputs) > 1 else [found]
            for var, value in zip(operation.outputs, results, strict=True):
                values[var.name] = np.asarray(value)
        return {var.name: values[var.name] for var in function.outputs}

    @staticmethod
    def _value(var: Any, values: Values) -> Any:
        if isinstance(var, (list, tuple)):
            return [Package._value(one, values) for one in var]
        return values.get(var.name, var.val)

    @staticmethod
    def _inferred(operation: Any, given: Values) -> Any:
        for name, var in operation.inputs.items():
            for one, value in zip(
                *((var, given[name]) if isinstance(var, (list, tuple)) else ([var], [given.get(name)])),
                strict=True,
            ):
                if one is not None and (one.op is None or one.op.op_type != "const"):
                    one._sym_val = SimpleNamespace(val=value)
        found = operation.value_inference()
        assert found is not None, operation.op_type
        return found
