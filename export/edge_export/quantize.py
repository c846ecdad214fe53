"""Quantised anchors: the weights of a `Decoder` in 8 or 4 bits, activations in 8 bits chosen call by call.

    dtype   products                                    embedding
    f32     f32                                         f32
    int8    int8, a scale a row                         int8, a scale a row
    8da4w   int4, a scale for each 32 along the row     int8, a scale a row

A tied embedding is stored twice, as the gather's int8 table and as the head's product: XNNPACK packs its weights in an
order of its own, which a gather cannot read.
"""

from __future__ import annotations

import torch
from torch import nn
from torchao.quantization import Int8DynamicActivationIntxWeightConfig, quantize_
from torchao.quantization.granularity import PerAxis, PerGroup

from edge_export.embedder import Int8Embedding
from edge_export.model import Decoder
from edge_export.source import ANCHOR_DTYPES
from edge_runtime.errors import InvalidArgumentError

GROUP = 32


def quantize_decoder(decoder: Decoder, dtype: str) -> None:
    """Quantises in place. f32 leaves it as it is.

    Raises:
        InvalidArgumentError: no such dtype, or a width that is no multiple of the group.
    """
    if dtype not in ANCHOR_DTYPES:
        raise InvalidArgumentError(f"anchor dtype {dtype!r}: there are {', '.join(ANCHOR_DTYPES)}")
    if dtype == "f32":
        return
    if dtype == "8da4w":
        for name, module in decoder.named_modules():
            if isinstance(module, nn.Linear) and module.in_features % GROUP:
                raise InvalidArgumentError(
                    f"anchor dtype 8da4w: {name} has rows of {module.in_features}, "
                    f"which is no multiple of {GROUP}: take int8"
                )
        weight_dtype, granularity = torch.int4, PerGroup(GROUP)  # type: ignore[attr-defined]  # the stubs lack it
    else:
        weight_dtype, granularity = torch.int8, PerAxis(0)
    with torch.no_grad():
        assert isinstance(decoder.tok_embeddings, nn.Embedding)
        decoder.tok_embeddings = Int8Embedding(decoder.tok_embeddings.weight.detach())
        quantize_(
            decoder,
            Int8DynamicActivationIntxWeightConfig(weight_dtype=weight_dtype, weight_granularity=granularity),
        )
