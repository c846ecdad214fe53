"""What a step of an export costs: seconds, those that a core worked, and the most memory that was resident."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_PEAK_RSS = "5"
"""What forgets the peak, proc(5)."""
_UNIT = 1 if sys.platform == "darwin" else 1024


@contextmanager
def costed(step: str, report: Callable[[str], None]) -> Iterator[None]:
    """Says at the end what the step took. Where the system cannot forget an earlier peak, it counts as well."""
    with suppress(OSError):
        _RESET.write_text(_PEAK_RSS, encoding="ascii")
    start, worked = time.perf_counter(), time.process_time()
    yield
    seconds, worked = time.perf_counter() - start, time.process_time() - worked
    report(f"{step}: {seconds:,.0f} s ({worked:,.0f} s of a core), peak memory {peak_bytes() / 1e6:,.0f} MB")


def peak_bytes() -> int:
    try:
        lines = _STATUS.read_text(encoding="ascii").splitlines()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _UNIT
    (peak,) = [int(line.split()[1]) for line in lines if line.startswith("VmHWM:")]
    return peak * 1024
