"""A conversation's path: when it is routed, and how readily it goes elsewhere."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from edge_runtime.errors import InvalidArgumentError
from edge_runtime.pager import Node
from edge_runtime.router import Route, Router


@dataclass(frozen=True)
class RoutingPolicy:
    """When a session routes, and how readily it changes what it reads. The KV cache is kept whatever changes.

    when: "prompt" routes a conversation's first message only, "turn" each message, "tokens" each message and
        again after every `every` generated tokens, on the turn's last `window` tokens.
    hysteresis: a path in use is kept as long as it concedes no more than this to the nearest nodes, in squared
        distance.
    min_margin: from the first level whose margin is smaller nothing is fetched; where that is level 1, the
        generic memory is read instead. A path that the conversation stays on is read whole.
    top_paths: the blocks of so many best paths are read together.
    """

    when: Literal["prompt", "turn", "tokens"] = "turn"
    every: int = 32
    window: int = 64
    hysteresis: float = 0.0
    min_margin: float = 0.0
    top_paths: int = 1

    def __post_init__(self) -> None:
        if self.when not in ("prompt", "turn", "tokens"):
            raise InvalidArgumentError(f"routing {self.when!r}: it is prompt, turn or tokens")
        if min(self.every, self.window, self.top_paths) < 1:
            raise InvalidArgumentError("every, window and top_paths of routing must be 1 or more")
        if not (self.hysteresis >= 0 and self.min_margin >= 0):
            raise InvalidArgumentError("hysteresis and min_margin of routing must be 0 or more")


class Topic:
    """The path of one conversation under a policy."""

    def __init__(self, router: Router, policy: RoutingPolicy) -> None:
        self._router, self._policy = router, policy
        self._path: list[int] = []

    def reset(self) -> None:
        """A new conversation: the next text is routed by itself."""
        self._path = []

    def route(self, text: str, blocked: Sequence[Node]) -> Route:
        """Where the conversation goes with this text; empty where the policy is sure of no level."""
        policy = self._policy
        # A conversation that is routed by its first message keeps that path at any price.
        hysteresis = math.inf if policy.when == "prompt" else policy.hysteresis
        route = self._router.route(
            text, blocked, top_paths=policy.top_paths, keep=self._path, hysteresis=hysteresis
        )
        stays = route.path == self._path
        self._path = route.path
        return route if stays else route.confident(policy.min_margin)
