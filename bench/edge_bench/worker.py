"""The process that an engine is measured in: requests as JSON lines on its input, replies on its output.

    python -m edge_bench.worker edge_bench.answering:Answering

A request calls one of the public methods of the class that is named:

    {"do": "speed", "tokens": 128, "decode": false, "memory": "none"}   ->   {"value": 0.0421}

A request that fails is answered by {"error": one line}. Whatever libraries print goes to the standard error.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
from typing import Any

from edge_runtime.errors import EdgeRuntimeError


def reply(subject: object, line: str) -> dict[str, Any]:
    request = json.loads(line)
    name = request.pop("do")
    assert not name.startswith("_")
    try:
        return {"value": getattr(subject, name)(**request)}
    except (EdgeRuntimeError, OSError, ImportError) as error:
        return {"error": " ".join(str(error).split()) or type(error).__name__}


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m edge_bench.worker", description=__doc__.splitlines()[0], allow_abbrev=False
    )
    parser.add_argument("subject", metavar="MODULE:CLASS", help="such as edge_bench.answering:Answering")
    module, _, name = parser.parse_args().subject.partition(":")
    # A library that prints must not break a line of ours.
    with os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8") as out:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        subject = getattr(importlib.import_module(module), name)()
        for line in sys.stdin:
            print(json.dumps(reply(subject, line)), file=out, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
