"""The process that an engine is measured in: requests as JSON lines on its input, replies on its output.

    {"do": "speed", "tokens": 128, "decode": false, "memory": "none"}   ->   {"value": 0.0421}

A request that fails is answered by {"error": one line}. Whatever libraries print goes to the standard error.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from edge_bench.answering import OPERATIONS, Answering
from edge_runtime.errors import EdgeRuntimeError


def reply(answering: Answering, line: str) -> dict[str, Any]:
    request = json.loads(line)
    operation = {one.__name__: one for one in OPERATIONS}[request.pop("do")]
    try:
        return {"value": operation(answering, **request)}
    except (EdgeRuntimeError, OSError, ImportError) as error:
        return {"error": " ".join(str(error).split()) or type(error).__name__}


def main() -> int:
    # A library that prints must not break a line of ours.
    with os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8") as out:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        answering = Answering()
        for line in sys.stdin:
            print(json.dumps(reply(answering, line)), file=out, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
