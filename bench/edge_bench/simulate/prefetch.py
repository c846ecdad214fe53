"""Which blocks a program might hint at once a prompt's path is there: from what it has seen, never from what comes."""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Callable, Sequence

from edge_bench.simulate.traces import Visit

Path = tuple[int, ...]
Hinter = Callable[[Visit], Sequence[Path]]
HINTED = 2  # paths a prompt


def _none(_: Visit) -> Sequence[Path]:
    return ()


def _recent() -> Hinter:
    """The topics that the user had last."""
    last: dict[int, deque[Path]] = defaultdict(deque)

    def hint(visit: Visit) -> Sequence[Path]:
        seen = last[visit.user]
        if visit.path in seen:
            seen.remove(visit.path)
        found = list(seen)[:HINTED]
        seen.appendleft(visit.path)
        return found

    return hint


def _popular() -> Hinter:
    """The most frequent topics of the level-1 branch, of all users so far."""
    counts: dict[int, Counter[Path]] = defaultdict(Counter)

    def hint(visit: Visit) -> Sequence[Path]:
        branch = counts[visit.path[0]]
        branch[visit.path] += 1
        return [path for path, _ in branch.most_common(HINTED + 1) if path != visit.path][:HINTED]

    return hint


HINTERS: dict[str, Callable[[], Hinter]] = {"none": lambda: _none, "recent": _recent, "popular": _popular}
