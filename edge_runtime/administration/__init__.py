"""Changes of a bundle's bank, each crash-safe: what `edge-runtime bank` does, for programs.

    from edge_runtime import administration

    administration.block("demo.bundle", [(1, 7)])

Runtimes that are open keep the revision that they opened.
"""

from edge_runtime.administration.blocking import block, unblock
from edge_runtime.administration.compaction import compact, remove
from edge_runtime.administration.edit import Outcome
from edge_runtime.administration.replacement import add_level, replace
from edge_runtime.administration.status import BankStatus, LevelStatus, status

__all__ = [
    "BankStatus",
    "LevelStatus",
    "Outcome",
    "add_level",
    "block",
    "compact",
    "remove",
    "replace",
    "status",
    "unblock",
]
