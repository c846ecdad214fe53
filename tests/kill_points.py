"""Kills a forked child before its k-th step that changes a file: where SIGKILL, or a crash, could cut it short.

The child is traced (ptrace), so that what is tested is the product's own code and nothing is hooked into it. A step is
a system call that writes, flushes, names or removes; a child killed at the call's entry has not made it.
"""

from __future__ import annotations

import ctypes
import os
import platform
import signal
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

# By machine: the calls that change files, and those of them that take a file descriptor first.
_STEPS = {
    "x86_64": {
        1: "write", 18: "pwrite", 20: "writev", 74: "fsync", 75: "fdatasync", 77: "ftruncate", 82: "rename",
        87: "unlink", 257: "openat", 263: "unlinkat", 264: "renameat", 316: "renameat2",
    },
    "aarch64": {
        64: "write", 68: "pwrite", 66: "writev", 82: "fsync", 83: "fdatasync", 46: "ftruncate", 56: "openat",
        35: "unlinkat", 38: "renameat", 276: "renameat2",
    },
}  # fmt: skip
_OF_DESCRIPTORS = {"write", "pwrite", "writev", "fsync", "fdatasync", "ftruncate"}
_TRACEME, _SYSCALL, _SETOPTIONS, _GET_SYSCALL_INFO = 0, 24, 0x4200, 0x420E
_TRACESYSGOOD, _EXITKILL, _ENTRY = 1, 1 << 20, 1
_INFO_BYTES = 88

supported = platform.system() == "Linux" and platform.machine() in _STEPS


@dataclass(frozen=True)
class Run:
    """`steps`: those made, in order; killed: before the next one. `exit_code` of a child that was not killed."""

    steps: list[str]
    exit_code: int | None


_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
_libc.ptrace.restype = ctypes.c_long


def _ptrace(request: int, pid: int, address: int | None, data: object) -> None:
    if _libc.ptrace(request, pid, address, data) < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"ptrace {request:#x}: {os.strerror(error)}")


def run(action: Callable[[], object], folder: Path, kill_before: int | None = None) -> Run:
    """Runs the action in a child; with `kill_before` k it is killed before its step number k, from 0, in `folder`."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            _ptrace(_TRACEME, 0, None, None)
            os.kill(os.getpid(), signal.SIGSTOP)
            action()
            code = 0
        finally:
            os._exit(code)
    os.waitpid(pid, 0)
    _ptrace(_SETOPTIONS, pid, None, _TRACESYSGOOD | _EXITKILL)
    steps: list[str] = []
    deliver = 0
    while True:
        _ptrace(_SYSCALL, pid, None, deliver)
        _, status = os.waitpid(pid, 0)
        if not os.WIFSTOPPED(status):
            return Run(steps, os.waitstatus_to_exitcode(status))
        stopped_by = os.WSTOPSIG(status)
        deliver = 0 if stopped_by in (signal.SIGTRAP | 0x80, signal.SIGTRAP) else stopped_by
        step = _step(pid, folder) if stopped_by == signal.SIGTRAP | 0x80 else None
        if step is None:
            continue
        if len(steps) == kill_before:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return Run(steps, None)
        steps.append(step)


def _step(pid: int, folder: Path) -> str | None:
    """What the call that the child is about to make changes; None for any other, and for calls that return."""
    buffer = ctypes.create_string_buffer(_INFO_BYTES)
    _ptrace(_GET_SYSCALL_INFO, pid, _INFO_BYTES, buffer)
    if buffer.raw[0] != _ENTRY:
        return None
    number, first, _, flags = struct.unpack_from("<4Q", buffer.raw, 24)
    name = _STEPS[platform.machine()].get(number)
    if name is None or (name == "openat" and not flags & os.O_CREAT):
        return None
    if name in _OF_DESCRIPTORS:
        path = str(Path(f"/proc/{pid}/fd/{first}").readlink())
        if not path.startswith(str(folder)):
            return None
        return f"{name} {path.removeprefix(str(folder))}"
    return name
