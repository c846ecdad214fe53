"""A child control group with a memory limit, version 1 or 2, for a process that must not exceed it.

rlimit would not do: it limits address space, not what is resident.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edge_runtime.errors import UnsupportedError

ADVICE = "run it as root, or under: systemd-run --user --scope -p Delegate=yes"
# The shell is in the group before it becomes the program, so that every byte of the program is charged to it.
ENTER = 'echo $$ > "$1/cgroup.procs" && shift && exec "$@"'


@dataclass(frozen=True)
class Hierarchy:
    """Where this process's group lies in the hierarchy that limits memory."""

    version: int
    directory: Path

    @property
    def limit_file(self) -> str:
        return "memory.limit_in_bytes" if self.version == 1 else "memory.max"

    @property
    def unlimited(self) -> str:
        return "-1" if self.version == 1 else "max"


def hierarchy(mountinfo: str, groups: str) -> Hierarchy:
    """From the texts of /proc/self/mountinfo and /proc/self/cgroup. UnsupportedError where none limits memory.

    Version 1 wins where both are mounted and it has the memory controller: then version 2 has not.
    """
    mounts: dict[int, tuple[str, str]] = {}  # version: root, mount point
    for line in mountinfo.splitlines():
        mount, _, source = line.partition(" - ")
        kind, _, options = source.split(" ", 2)
        root, point = mount.split()[3:5]
        if kind == "cgroup" and "memory" in options.split(","):
            mounts[1] = root, point
        elif kind == "cgroup2":
            mounts[2] = root, point
    own: dict[int, str] = {}
    for line in groups.splitlines():
        number, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            own[1] = path
        elif number == "0":
            own[2] = path
    for version in (1, 2):
        if version in mounts and version in own:
            root, point = mounts[version]
            # In a container the mount may begin below the root that the paths begin at, or above what it shows.
            path = own[version].removeprefix(root.rstrip("/")) if own[version].startswith(root) else ""
            return Hierarchy(version, Path(point) / path.lstrip("/"))
    raise UnsupportedError(f"no control group hierarchy that limits memory is mounted here: {ADVICE}")


def _number(path: Path, key: str | None = None) -> int | None:
    """The number in a file, or behind a key of it; None where there is none."""
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    values = [line.split()[-1] for line in lines if key is None or line.split()[0] == key]
    return int(values[0]) if values and values[0].isdigit() else None


class MemoryGroup:
    """A child group. Use as a context: it goes when the block ends. REQUIRES that its processes have ended by then.

    limit: bytes; None counts and does not limit.
    """

    def __init__(self, parent: Hierarchy, limit: int | None) -> None:
        self.hierarchy = parent
        self.directory = self._make(limit)

    @classmethod
    def below_own(cls, limit: int | None) -> MemoryGroup:
        """Below the group that this process is in. UnsupportedError where that is not allowed."""
        texts = (Path(f"/proc/self/{name}").read_text(encoding="utf-8") for name in ("mountinfo", "cgroup"))
        return cls(hierarchy(*texts), limit)

    def _make(self, limit: int | None) -> Path:
        # In version 2 a group with processes may not share out memory: then a sibling of ours can still be made.
        parents = [self.hierarchy.directory]
        if self.hierarchy.version == 2:
            parents.append(self.hierarchy.directory.parent)
        why = "no memory controller for children"
        for parent in parents:
            child = parent / f"edge-bench-{os.getpid()}"
            try:
                child.mkdir()
            except OSError as error:
                why = str(error.strerror)
                continue
            try:
                # "r+": a file that the system does not offer is not to be made.
                with (child / self.hierarchy.limit_file).open("r+", encoding="ascii") as file:
                    file.write(self.hierarchy.unlimited if limit is None else str(limit))
            except OSError as error:
                why = f"{self.hierarchy.limit_file}: {error.strerror}"
                child.rmdir()
                continue
            return child
        raise UnsupportedError(
            f"{self.hierarchy.directory}: no child group with a memory limit ({why}): {ADVICE}"
        )

    def command(self, program: Sequence[str]) -> list[str]:
        """What runs the program inside the group."""
        return ["sh", "-c", ENTER, "sh", str(self.directory), *program]

    def figures(self) -> dict[str, int | None]:
        """What the system counted: None where it does not say."""
        if self.hierarchy.version == 1:
            return {
                "limit_bytes": _number(self.directory / "memory.limit_in_bytes"),
                "peak_bytes": _number(self.directory / "memory.max_usage_in_bytes"),
                "limit_hits": _number(self.directory / "memory.failcnt"),
                "oom_kills": _number(self.directory / "memory.oom_control", "oom_kill"),
            }
        events = self.directory / "memory.events"
        return {
            "limit_bytes": _number(self.directory / "memory.max"),
            "peak_bytes": _number(self.directory / "memory.peak"),
            "limit_hits": _number(events, "max"),
            "oom_kills": _number(events, "oom_kill"),
        }

    def __enter__(self) -> MemoryGroup:
        return self

    def __exit__(self, *_: object) -> None:
        self.directory.rmdir()
