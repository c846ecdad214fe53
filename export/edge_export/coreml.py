"""Writes Core ML packages (iOS 18): the KV cache as state, memory in fp16, one tensor a level, as inputs or as states.

A package has two functions that share their weights and states: `prefill`, for 1 to max_prefill tokens, and `decode`
for one, whose shapes are all fixed, as the neural engine wants them. Both have the same states, so that one state
object serves them; memory's are written by the caller, once a fetch, and only read by the functions.
"""

from __future__ import annotations

import copy
import tempfile
from pathlib import Path
from typing import Any

import coremltools as ct
import coremltools.optimize.coreml as optimize
import numpy as np
import torch
from coremltools.converters.mil.mil.passes.graph_pass import AbstractGraphPass
from coremltools.converters.mil.mil.passes.pass_registry import register_pass
from torch import Tensor, nn

from edge_export.memory import HIDDEN, InputMemory
from edge_export.model import Decoder, attention, frequencies, visible

GROUP = 32
PREFILL, DECODE = "prefill", "decode"


class CoremlDecoder(nn.Module):
    """Appends T tokens to those in the cache; arguments as `forward` says.

    A level's rows are fixed: memory that is not fetched is given as zeros, which add nothing.

    Args:
        decoder: shared, not copied.
        memory: what it is given, FFN memory.
    """

    def __init__(self, decoder: Decoder, memory: InputMemory) -> None:
        super().__init__()
        self.decoder, self.config, self.memory = decoder, decoder.config, memory
        config = decoder.config
        shape = (config.context_length, config.kv_heads, config.head_dim)
        for layer in range(len(config.layers)):
            for kind in ("k", "v"):
                # Persistent: the conversion makes states of those only.
                self.register_buffer(f"{kind}_{layer}", torch.zeros(shape))
        for index, rope in enumerate(decoder.ropes):
            turns = frequencies(rope, config.head_dim)
            # As tables: angles of far positions are beyond fp16's precision.
            angles = torch.arange(config.context_length)[:, None] * torch.cat([turns, turns])
            self.register_buffer(f"cos_{index}", angles.cos()[:, None], persistent=False)
            self.register_buffer(f"sin_{index}", angles.sin()[:, None], persistent=False)

    def forward(self, tokens: Tensor, positions: Tensor, *memory: Tensor) -> Tensor:
        """Logits [1, vocab_size] of the last token.

        tokens: i32 [1, T]. positions: i32 [T], those of the tokens. memory: of each level [memory layers, 3, r, d].
        """
        config = self.config
        rotary = {
            rope: (getattr(self, f"cos_{index}")[positions], getattr(self, f"sin_{index}")[positions])
            for index, rope in enumerate(self.decoder.ropes)
        }
        keys = torch.arange(config.context_length, dtype=torch.int32)
        windows = {layer.window for layer in config.layers}
        masks = {window: visible(positions, keys, window, HIDDEN) for window in windows}

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            caches = []
            for kind, new in (("k", k), ("v", v)):
                cache = getattr(self, f"{kind}_{layer}")
                cache[positions] = new[0]
                caches.append(cache[None])
            mask = masks[config.layers[layer].window]
            return attention(q, caches[0], caches[1], mask, config.attention_scale)

        x = self.decoder.hidden(tokens, rotary, attend, self.memory.reader(memory))
        return self.decoder.logits(x[:, -1])


class StatefulDecoder(CoremlDecoder):
    """As `CoremlDecoder`, with memory as states `memory_<i>`, which hold it from one call to the next.

    Args:
        decoder: shared, not copied.
        memory: what it is given, FFN memory.
        shapes: of each level, [memory layers, 3, r, d].
    """

    def __init__(self, decoder: Decoder, memory: InputMemory, shapes: list[tuple[int, ...]]) -> None:
        super().__init__(decoder, memory)
        self._levels = len(shapes)
        for level, shape in enumerate(shapes):
            self.register_buffer(f"memory_{level}", torch.zeros(shape))

    def forward(self, tokens: Tensor, positions: Tensor) -> Tensor:  # type: ignore[override]  # memory is here
        """As `CoremlDecoder.forward`."""
        levels = [getattr(self, f"memory_{level}") for level in range(self._levels)]
        for level in levels:
            # A buffer that is only read would become a constant of zeros; `_drop_self_writes` takes this out again.
            level.copy_(level)
        return super().forward(tokens, positions, *levels)


@register_pass(namespace="edge_runtime")
class _drop_self_writes(AbstractGraphPass):  # type: ignore[misc]  # noqa: N801  # named as it is registered
    """Takes out writes of what was just read from the same state, each of which might copy it."""

    def apply(self, prog: Any) -> None:
        for function in prog.functions.values():
            for operation in list(function.operations):
                if operation.op_type == "coreml_update_state":
                    source = operation.value.op
                    if source is None:
                        continue
                    if source.op_type == "read_state" and source.input is operation.state:
                        function.remove_ops([operation])


def export_coreml(
    decoder: CoremlDecoder, shapes: list[tuple[int, ...]], max_prefill: int, dtype: str, path: Path
) -> None:
    """The package of an anchor.

    shapes: of each memory input, none of a `StatefulDecoder`. dtype: of the weights: f16, i8 (a scale a row), i4
    (a scale for each 32 along the row); what is computed is fp16.
    """
    functions = {DECODE: 1}
    if max_prefill > 1:
        functions[PREFILL] = max_prefill
    description = ct.utils.MultiFunctionDescriptor()
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        for name, length in functions.items():
            part = str(Path(scratch) / f"{name}.mlpackage")
            _quantized(_converted(decoder, shapes, length), dtype).save(part)
            description.add_function(part, src_function_name="main", target_function_name=name)
        description.default_function_name = DECODE
        ct.utils.save_multifunction(description, str(path))


def _converted(decoder: CoremlDecoder, shapes: list[tuple[int, ...]], length: int) -> Any:
    """A model of one function, for 1 to `length` tokens; of a length of one, all shapes are fixed."""
    config = decoder.config
    count = min(length, 4)
    fresh = None if length == 1 else torch.export.Dim("tokens", min=1, max=length)
    examples = (torch.zeros(1, count, dtype=torch.int32), torch.arange(count, dtype=torch.int32))
    # A call of the traced module writes into its caches: the copy keeps them to itself.
    module = copy.copy(decoder).eval()
    with torch.no_grad():
        program = torch.export.export(
            module,
            (*examples, *(torch.zeros(shape) for shape in shapes)),
            dynamic_shapes=(
                {1: fresh} if fresh else None,
                {0: fresh} if fresh else None,
                *([] if isinstance(decoder, StatefulDecoder) else [tuple(None for _ in shapes)]),
            ),
            strict=False,
        ).run_decompositions({})
    passes = ct.PassPipeline.DEFAULT
    passes.append_pass("edge_runtime::_drop_self_writes")
    axis = 1 if length == 1 else ct.RangeDim(1, length, default=count)
    return ct.convert(
        program,
        inputs=[
            ct.TensorType("tokens", (1, axis), dtype=np.int32),
            ct.TensorType("positions", (axis,), dtype=np.int32),
            *(
                ct.TensorType(f"memory_{level}", shape, dtype=np.float16)
                for level, shape in enumerate(shapes)
            ),
        ],
        outputs=[ct.TensorType("logits", dtype=np.float16)],
        compute_precision=ct.precision.FLOAT16 if config.norm == "layernorm" else _fp16_but_squares(),
        minimum_deployment_target=ct.target.iOS18,
        pass_pipeline=passes,
        skip_model_load=True,
    )


def _fp16_but_squares() -> Any:
    """Sums of squares leave fp16's range where activations pass 256, as those of large anchors do."""

    def narrow(operation: Any) -> bool:
        if operation.op_type in ("reduce_mean", "rsqrt"):
            return False
        if operation.op_type == "mul":
            return operation.x is not operation.y
        return not any(child.op_type == "rsqrt" for child in operation.outputs[0].child_ops)

    return ct.transform.FP16ComputePrecision(op_selector=narrow)


def quantizer(dtype: str) -> dict[str, Any]:
    """What coremltools calls i8 (a scale a row) and i4 (one for each 32 along the row)."""
    kind: dict[str, Any] = (
        {"dtype": "int8", "granularity": "per_channel"}
        if dtype == "i8"
        else {"dtype": "int4", "granularity": "per_block", "block_size": GROUP}
    )
    return {"mode": "linear_symmetric"} | kind


def _quantized(model: Any, dtype: str) -> Any:
    if dtype == "f16":
        return model
    config = optimize.OpLinearQuantizerConfig(**quantizer(dtype))
    return optimize.linear_quantize_weights(model, optimize.OptimizationConfig(global_config=config))
