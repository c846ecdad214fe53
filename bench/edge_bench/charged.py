"""What a phone would charge to this process: its resident memory, split as the systems count it.

iOS charges dirty and anonymous pages and what it has compressed of them; Android's low-memory killer weighs anonymous
and shared memory and swap. Both take clean pages of mapped files back when they need them.
"""

from __future__ import annotations

import re
import threading
from dataclasses import asdict, dataclass
from pathlib import Path

SMAPS, STATUS = Path("/proc/self/smaps"), Path("/proc/self/status")
_MAPPING = re.compile(r"^[0-9a-f]+-[0-9a-f]+ ")


@dataclass(frozen=True)
class Charged:
    """Bytes; resident = anonymous + dirty + clean."""

    resident: int
    anonymous: int
    dirty: int  # pages of files and of shared memory that were written to
    clean: int  # pages of files that can be read again
    swapped: int

    @property
    def charged(self) -> int:
        return self.anonymous + self.dirty + self.swapped

    def to_json(self) -> dict[str, int]:
        return {f"{key}_bytes": value for key, value in asdict(self).items()} | {
            "charged_bytes": self.charged
        }


def split(smaps: str) -> Charged:
    """From the text of /proc/<pid>/smaps."""
    resident = anonymous = dirty = swapped = 0
    fields: dict[str, int] = {}
    for line in [*smaps.splitlines(), "0-0 "]:
        if _MAPPING.match(line):
            # Mapping by mapping: an anonymous page may be clean, and must not hide a file's dirty one in a sum.
            resident += fields.get("Rss", 0)
            anonymous += fields.get("Anonymous", 0)
            swapped += fields.get("Swap", 0)
            written = fields.get("Private_Dirty", 0) + fields.get("Shared_Dirty", 0)
            dirty += max(0, written - fields.get("Anonymous", 0))
            fields = {}
        elif line.endswith(" kB"):
            key, _, value = line.partition(":")
            fields[key] = int(value.split()[0]) * 1024
    return Charged(resident, anonymous, dirty, resident - anonymous - dirty, swapped)


def charged() -> Charged:
    """This process's, now."""
    return split(SMAPS.read_text(encoding="utf-8", errors="replace"))


def peak_resident() -> int:
    """The most bytes that this process has had resident."""
    lines = STATUS.read_text(encoding="utf-8").splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))


class Watch:
    """Looks at this process's memory every few milliseconds while it is a context; `peak` is the most charged look.

    It slows the process down: nothing is to be timed meanwhile.
    """

    def __init__(self, seconds: float = 0.01) -> None:
        self.peak = charged()
        self._seconds, self._end = seconds, threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def _look(self) -> None:
        while not self._end.wait(self._seconds):
            self.look()

    def look(self) -> None:
        now = charged()
        if now.charged > self.peak.charged:
            self.peak = now

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()
        self.look()
