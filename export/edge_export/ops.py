"""`edge::memory_ffn` for torch: what the exporter traces, and an eager twin for parity tests.

    edge::memory_ffn(x f32 [1, T, d], memory i64 [1], layer) -> f32 [1, T, d]

y = sum over the leased blocks of W3^T ( silu(W1 x) * (W2 x) )   Pouransari et al. 2025, section 2 and appendix I.
`memory` is a handle of the process's lease registry, 0 for none; `layer` counts the layers that carry memory.
The handle is a tensor because torch.export would make a plain int a constant of the program.

Importing this module registers the functional operator, its out variant (ExecuTorch lowers to it) and the shape rule.
"""

from __future__ import annotations

import torch

from edge_runtime import _core

_library = torch.library.Library("edge", "DEF")
_library.define("memory_ffn(Tensor x, Tensor memory, int layer) -> Tensor")
_library.define("memory_ffn.out(Tensor x, Tensor memory, int layer, *, Tensor(a!) out) -> Tensor(a!)")


def _memory_ffn(x: torch.Tensor, memory: torch.Tensor, layer: int) -> torch.Tensor:
    handle = int(memory.item())
    if handle == 0:
        return torch.zeros_like(x)
    rows = x.detach().reshape(-1, x.shape[-1]).contiguous().numpy()
    return torch.from_numpy(_core.memory_ffn(rows, handle, layer)).reshape(x.shape)


def _memory_ffn_out(x: torch.Tensor, memory: torch.Tensor, layer: int, *, out: torch.Tensor) -> torch.Tensor:
    return out.copy_(_memory_ffn(x, memory, layer))


def _memory_ffn_shape(x: torch.Tensor, memory: torch.Tensor, layer: int) -> torch.Tensor:
    return torch.empty_like(x)


_library.impl("memory_ffn", _memory_ffn, "CPU")
_library.impl("memory_ffn.out", _memory_ffn_out, "CPU")
_library.impl("memory_ffn", _memory_ffn_shape, "Meta")
