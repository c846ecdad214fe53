"""What a recipe's file holds, in the words of its author."""

from collections.abc import Iterator
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, Literal, get_args, get_origin

import dacite


def said(error: dacite.DaciteError) -> str:
    """Of a recipe's author, not of its reader's classes."""
    if isinstance(error, dacite.UnexpectedDataError):
        return f"unknown key {', '.join(sorted(error.keys))}"
    if isinstance(error, dacite.MissingValueError):
        return f"{error.field_path} is missing"
    if isinstance(error, dacite.WrongTypeError) and get_origin(error.field_type) is Literal:
        choices = ", ".join(map(str, get_args(error.field_type)))
        return f"{error.field_path} is {error.value!r}: it must be one of {choices}"
    return str(error)


def numbers(table: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """Numbers and truth values, wherever they are; no recipe has a truth value."""
    for key, value in table.items():
        if isinstance(value, dict):
            yield from numbers(value, f"{prefix}{key}.")
        else:
            found = value if isinstance(value, list) else [value]
            yield from ((f"{prefix}{key}", one) for one in found if isinstance(one, int | float))


def merge(values: dict[str, Any], change: dict[str, Any]) -> None:
    """Each value of the change takes the place of the table's."""
    for key, value in change.items():
        if isinstance(value, dict) and isinstance(values.get(key), dict):
            merge(values[key], value)
        else:
            values[key] = value


def without_defaults(table: Any) -> dict[str, Any]:
    """The values of a recipe's dataclass, table by table."""
    values = {
        field.name: getattr(table, field.name)
        for field in fields(table)
        if field.default is MISSING or getattr(table, field.name) != field.default
    }
    return {k: without_defaults(v) if is_dataclass(v) else v for k, v in values.items()}
