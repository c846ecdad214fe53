"""What the requests of a measurement ask."""

from __future__ import annotations

import json
from pathlib import Path

from edge_runtime.errors import InvalidArgumentError
from edge_runtime.lines import text_lines

# Far apart, so that they are routed to different blocks, and some near each other, so that blocks are met again.
PROMPTS = (
    "The atomic number of hafnium is",
    "The atomic number of radon is",
    "The capital city of Portugal is",
    "The longest river in South America is",
    "In 1815, the battle of Waterloo was fought between",
    "The mathematician Ada Lovelace was born in",
    "To bake bread, first mix the flour with",
    "The function returns a list of integers, so the caller must",
)


def read_prompts(path: Path | None) -> list[str]:
    """Of a file: a prompt a line, or JSON lines with a key `prompt`; the list above where there is none.

    Raises NotFoundError or BadFormatError where it is no text file, InvalidArgumentError where the file has none, or a
    line without its prompt.
    """
    if path is None:
        return list(PROMPTS)
    prompts = []
    for number, line in text_lines(path, "prompts, one a line, or JSON lines with a key 'prompt'"):
        if path.suffix in (".jsonl", ".json"):
            try:
                prompts.append(str(json.loads(line)["prompt"]))
            except (ValueError, KeyError, TypeError):
                raise InvalidArgumentError(
                    f"{path}, line {number}: not a JSON object with a key 'prompt'"
                ) from None
        else:
            prompts.append(line)
    if not prompts:
        raise InvalidArgumentError(f"{path}: it has no prompt")
    return prompts
