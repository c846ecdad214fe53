"""Attention that appends to a cache: in ONNX programs com.microsoft's GroupQueryAttention, which writes in place where
its past and its present are one buffer; run by torch, the same spelt out."""

from __future__ import annotations

import torch
from torch import Tensor

from edge_export.model import attention, visible

Outputs = tuple[Tensor, Tensor, Tensor]


def cached_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    keys: Tensor,
    values: Tensor,
    last: Tensor,
    window: int | None,
    scale: float,
) -> Outputs:
    """Of T tokens behind those in the cache: f32 [1, T, heads, head_dim], and the cache with them.

    q: f32 [1, T, heads, head_dim]. k, v: [1, T, kv_heads, head_dim]. keys, values: [1, kv_heads, C, head_dim].
    last: i32 [1], the position of the last token. window: of tokens that a query sees, itself included; None: all.
    """
    if not torch.compiler.is_exporting():
        return _spelt_out(q, k, v, keys, values, int(last), window, scale)
    # The longest sequence, with its past: of one sequence its own.
    total = (last + 1).reshape(())
    flat = [part.flatten(2) for part in (q, k, v)]
    y, keys, values = torch.onnx.ops.symbolic_multi_out(
        "com.microsoft::GroupQueryAttention",
        [*flat, keys, values, last, total],
        {
            "num_heads": q.shape[2],
            "kv_num_heads": k.shape[2],
            "local_window_size": -1 if window is None else window,
            "scale": scale,
        },
        dtypes=[one.dtype for one in (q, keys, values)],
        shapes=[one.shape for one in (flat[0], keys, values)],
        version=1,
    )
    return y.unflatten(-1, q.shape[2:]), keys, values


def _spelt_out(
    q: Tensor, k: Tensor, v: Tensor, keys: Tensor, values: Tensor, last: int, window: int | None, scale: float
) -> Outputs:
    positions, start = torch.arange(last + 1), last + 1 - q.shape[1]
    appended = []
    for cache, new in ((keys, k), (values, v)):
        cache = cache.clone()
        cache[:, :, start : last + 1] = new.transpose(1, 2)
        appended.append(cache)
    seen = [cache[:, :, : last + 1].transpose(1, 2) for cache in appended]
    y = attention(q, seen[0], seen[1], visible(positions[start:], positions, window), scale)
    return y, appended[0], appended[1]
