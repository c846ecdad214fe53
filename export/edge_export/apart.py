"""A program that is written by a process of its own, which gives back what lowering leaves in memory."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from edge_export.source import ExportConfig, Source
from edge_runtime.errors import EdgeRuntimeError


def write_apart(
    root: Path, source: Source, config: ExportConfig, report: Callable[[str], None]
) -> dict[str, Any]:
    """`edge_export.programs.write_program` of what the source holds, in another process.

    Raises EdgeRuntimeError and OSError as `write_program`, and the former where the process ends before it is done.
    """
    # Not forked: torch's threads do not survive a fork.
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_write, args=(theirs, root, source, config))
    process.start()
    theirs.close()
    try:
        while True:
            said, value = ours.recv()
            if said == "failed":
                raise value
            if said == "wrote":
                entry: dict[str, Any] = value
                return entry
            report(value)
    except EOFError:
        process.join()
        program = "/".join(config.programs[0])
        raise EdgeRuntimeError(
            f"{root}: the process that wrote the program {program} ended with {process.exitcode} before it was done; "
            "-9 is a system out of memory"
        ) from None
    except BaseException:
        process.terminate()
        raise
    finally:
        process.join()


def _write(pipe: Connection, root: Path, source: Source, config: ExportConfig) -> None:
    # Ctrl-C is the first process's, which ends this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    from edge_export.quiet import quiet_libraries

    with quiet_libraries():
        from edge_export.inputs import load_inputs
        from edge_export.programs import write_program
    try:
        inputs = load_inputs(source, config.context_length)
        entry = write_program(root, inputs, config, lambda line: pipe.send(("says", line)), consume=True)
    except (EdgeRuntimeError, OSError) as error:
        pipe.send(("failed", error))
    else:
        pipe.send(("wrote", entry))
