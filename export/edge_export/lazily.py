"""Keeps torch.fx from writing code that nobody runs.

A graph module writes itself out as Python and compiles it whenever its graph is assigned. ExecuTorch's partitioning
assigns the whole program's once for each delegate and once more to log it: with an anchor of 35 layers, 141 delegates
in steps that each grow with all layers. Its passes interpret graphs instead.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch.fx import GraphModule
from torch.fx.graph import CodeGen


@contextmanager
def lazily_compiled() -> Iterator[None]:
    """Within, a graph module is compiled when it is first called, not when its graph changes. One thread at a time."""
    compiled = GraphModule.recompile

    def later(self: GraphModule) -> None:
        if type(self.graph._codegen) is not CodeGen:
            # Other generators leave more behind than the code. Modules of exported programs have the plain one.
            compiled(self)
            return

        def forward(self: GraphModule, *arguments: Any, **named: Any) -> Any:
            compiled(self)
            return self.forward(*arguments, **named)

        # A graph module has a class of its own. `_code` is what printing it shows.
        type(self).forward = forward
        self._code = ""

    GraphModule.recompile = later  # type: ignore[assignment,method-assign]
    try:
        yield
    finally:
        GraphModule.recompile = compiled  # type: ignore[method-assign]
