"""The other end of `edge_bench.worker`: starts the process, asks it, and says how it ended."""

from __future__ import annotations

import json
import select
import subprocess
import sys
import tempfile
from typing import Any, cast

from edge_bench.cgroup import MemoryGroup
from edge_runtime.errors import EdgeRuntimeError

COMMAND = (sys.executable, "-m", "edge_bench.worker")
SUBJECT = "edge_bench.answering:Answering"


class WorkerEndedError(EdgeRuntimeError):
    """The worker ended, or took too long and was ended, before it replied."""

    code = "worker_ended"


class Remote:
    """A worker, in a control group where one is given. Use as a context: the worker ends with it. Not thread-safe.

    subject: module:class of what it makes and asks.
    """

    def __init__(self, group: MemoryGroup | None = None, subject: str = SUBJECT) -> None:
        command = (*COMMAND, subject)
        self._log = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115  # closed with the worker
        self._process = subprocess.Popen(
            command if group is None else group.command(command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )

    def ask(self, operation: str, timeout: float | None = None, **arguments: Any) -> Any:
        """The operation's value.

        Raises:
            WorkerEndedError: it ended, or did not reply within `timeout` seconds.
            EdgeRuntimeError: what the operation raised.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            print(json.dumps({"do": operation, **arguments}), file=self._process.stdin, flush=True)
        except BrokenPipeError:
            raise WorkerEndedError(self._ended()) from None
        # One reply is under way at most, so nothing can wait in the reader's own buffer.
        if not select.select([self._process.stdout], [], [], timeout)[0]:
            raise WorkerEndedError(f"no reply to {operation!r} within {timeout:.0f} s")
        line = self._process.stdout.readline()
        if not line:
            raise WorkerEndedError(self._ended())
        found = json.loads(line)
        if "error" in found:
            raise EdgeRuntimeError(found["error"])
        return found["value"]

    def _ended(self) -> str:
        code = self._process.wait()
        self._log.seek(0)
        lines = self._log.read().split("\n")
        last = next((line for line in reversed(lines) if line.strip()), "")
        return f"the measured process ended with {code}{': ' if last else ''}{last.strip()}"

    def __enter__(self) -> Remote:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()
        self._log.close()


def open_worker(
    group: MemoryGroup | None, bundle: str, timeout: float | None = None, **options: Any
) -> tuple[Remote, dict[str, Any]]:
    """A worker that has opened a bundle, and what it said of it. Close the worker."""
    remote = Remote(group)
    try:
        return remote, cast(dict[str, Any], remote.ask("open", timeout, bundle=bundle, **options))
    except BaseException:
        remote.__exit__()
        raise
