"""The state file of a bundle: which nodes are blocked, and which are removed (docs/bundle-format.md)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from edge_runtime.errors import BadFormatError, UnsupportedError

Node = tuple[int, int]
FORMAT = "edge-runtime.state"
SCHEMA = 1


@dataclass(frozen=True)
class BankState:
    """(level, node) pairs. A blocked node shuts its subtree as well; a removed one has no block any more."""

    blocked: frozenset[Node] = frozenset()
    removed: frozenset[Node] = frozenset()

    @classmethod
    def parse(cls, text: str) -> BankState:
        """BadFormatError says what is wrong; UnsupportedError for a newer schema. Neither names the file."""
        try:
            data = json.loads(text)
            named, schema = data["format"], data["schema"]
            lists = {key: data[key] for key in ("blocked", "removed")}
        except (ValueError, KeyError, TypeError, RecursionError):
            raise BadFormatError("not a state file: copy the bundle again") from None
        if named != FORMAT:
            raise BadFormatError("not a state file: copy the bundle again")
        if schema != SCHEMA:
            raise UnsupportedError(f"not a state file of schema {SCHEMA}: update edge-runtime")
        return cls(**{key: _nodes(key, entries) for key, entries in lists.items()})

    def to_text(self, revision: int) -> str:
        """The file's content; `revision` is the bundle's that it belongs to."""
        nodes = {"blocked": sorted(self.blocked), "removed": sorted(self.removed)}
        return json.dumps({"format": FORMAT, "schema": SCHEMA, "revision": revision, **nodes}) + "\n"

    def blocker_of(self, node: Node, fanout: int) -> Node | None:
        """The blocked node that shuts this one: itself, or the nearest above it."""
        level, index = node
        while True:
            if (level, index) in self.blocked:
                return level, index
            if level <= 1:  # level 0, the generic memory, is nobody's parent
                return None
            level, index = level - 1, index // fanout


def _nodes(key: str, entries: Any) -> frozenset[Node]:
    def is_node(entry: Any) -> bool:
        return isinstance(entry, list) and len(entry) == 2 and all(type(n) is int and n >= 0 for n in entry)

    if not isinstance(entries, list) or not all(map(is_node, entries)):
        raise BadFormatError(f"'{key}' is not a list of [level, node]: copy the bundle again")
    return frozenset((level, node) for level, node in entries)
