"""On-device inference with memory paging: a small language model in RAM, its memory bank on flash.

from edge_runtime import Runtime

runtime = Runtime.open("demo.bundle", budget="8MB")
with runtime.session() as session:
    for text in session.generate("The atomic number of Hafnium is"):
        print(text, end="", flush=True)
    print(session.stats)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edge_runtime.runtime import Runtime as Runtime
    from edge_runtime.session import Session as Session

__all__ = ["Runtime", "Session"]


def __getattr__(name: str) -> object:
    # Loaded on first use, so that `edge-runtime --help` and the readers of files stay light.
    if name == "Runtime":
        from edge_runtime.runtime import Runtime

        return Runtime
    if name == "Session":
        from edge_runtime.session import Session

        return Session
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
