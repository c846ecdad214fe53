"""Devices as TOML: bench/edge_bench/profiles/*.toml, or a file of the user's. Every figure names its source."""

from __future__ import annotations

import math
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edge_runtime.errors import BadFormatError, InvalidArgumentError, NotFoundError

DIRECTORY = Path(__file__).resolve().parent.parent / "profiles"
RAM = "ram"  # in a placement: the level is pinned in memory, and no device is asked
FIGURES = ("bytes_per_second", "lanes", "latency_us", "joules_per_byte", "capacity_bytes", "write_cycles")


@dataclass(frozen=True)
class Profile:
    """A device.

    latency: (bytes of a request, seconds before its transfer), ascending; lines between the points, the ends hold
    beyond them. `lanes` requests wait out their latency at once, and their transfers share the bandwidth.
    """

    key: str
    name: str
    bytes_per_second: float
    lanes: int
    latency: tuple[tuple[int, float], ...]
    joules_per_byte: float
    capacity_bytes: float
    write_cycles: float
    sources: dict[str, str] = field(compare=False)

    def native(self) -> tuple[float, int, list[tuple[int, int]]]:
        """As the simulator's C++ half takes it."""
        return self.bytes_per_second, self.lanes, [(size, round(s * 1e9)) for size, s in self.latency]

    @property
    def assumptions(self) -> list[str]:
        """The figures that are no more than that."""
        return [f"{self.name}, {key}: {text}" for key, text in self.sources.items() if "assumption" in text]


def names() -> list[str]:
    return sorted(path.stem for path in DIRECTORY.glob("*.toml"))


def _number(table: dict[str, Any], key: str, path: Path) -> float:
    value = table[key]
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise BadFormatError(f"{path}: {key} must be a number above 0")
    return float(value)


def _latency(table: dict[str, Any], path: Path) -> tuple[tuple[int, float], ...]:
    try:
        points = tuple((int(size), float(us) * 1e-6) for size, us in table["latency_us"])
    except (TypeError, ValueError):
        points = ()
    sizes = [size for size, _ in points]
    if not points or sizes != sorted(set(sizes)) or not all(0 <= s < math.inf for _, s in points):
        raise BadFormatError(
            f"{path}: latency_us must be a list of [bytes, microseconds] with ascending bytes"
        )
    return points


def read(path: Path) -> Profile:
    """A profile's file. NotFoundError, BadFormatError."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise NotFoundError(
            f"{path}: no such profile: name a TOML file, or one of {', '.join(names())}"
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadFormatError(f"{path}: not TOML: {error}") from None
    sources = table.get("sources")
    missing = [key for key in ("name", *FIGURES) if key not in table]
    if missing or set(table) - {"name", "sources", *FIGURES}:
        odd = ", ".join(missing or sorted(set(table) - {"name", "sources", *FIGURES}))
        raise BadFormatError(f"{path}: {'missing' if missing else 'unknown'}: {odd}")
    if not isinstance(sources, dict) or set(sources) != set(FIGURES):
        raise BadFormatError(
            f"{path}: [sources] must say of each figure where it is from: {', '.join(FIGURES)}"
        )
    lanes = _number(table, "lanes", path)
    if lanes != int(lanes):
        raise BadFormatError(f"{path}: lanes must be a whole number")
    return Profile(
        path.stem,
        str(table["name"]),
        _number(table, "bytes_per_second", path),
        int(lanes),
        _latency(table, path),
        _number(table, "joules_per_byte", path),
        _number(table, "capacity_bytes", path),
        _number(table, "write_cycles", path),
        {str(key): str(text) for key, text in sources.items()},
    )


def find(text: str) -> Profile:
    """By the name of one that comes with the package, or by the path of a file."""
    return read(DIRECTORY / f"{text}.toml" if text in names() else Path(text))


def parse_placement(text: str, levels: list[int]) -> dict[int, Profile | None]:
    """ "ufs-4.0" for all levels, or "1=ram,2=ufs-4.0,3=sd-card". None stands for RAM.

    Raises InvalidArgumentError where a level is missing, not there, or named twice.
    """
    if "=" not in text:
        if text == RAM:
            raise InvalidArgumentError("a placement of everything in RAM: there is nothing to simulate")
        return dict.fromkeys(levels, find(text))
    placed: dict[int, Profile | None] = {}
    for part in text.split(","):
        number, _, name = part.partition("=")
        if not number.strip().isdigit() or int(number) not in levels or int(number) in placed:
            raise InvalidArgumentError(
                f"{part!r} in the placement: write LEVEL=PROFILE, once for each of the levels {levels}"
            )
        placed[int(number)] = None if name.strip() == RAM else find(name.strip())
    if missing := [level for level in levels if level not in placed]:
        raise InvalidArgumentError(f"{text!r}: the placement says nothing of the levels {missing}")
    if not any(placed.values()):
        raise InvalidArgumentError("a placement of everything in RAM: there is nothing to simulate")
    return placed
