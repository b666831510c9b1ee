"""Quantities with units as a scenario writes them: `30s`, `500ms`, `24GiB`, `30%`.

Each parser takes a value from YAML and returns a number in the base unit. For a wrong value it raises ValueError with
one sentence that contains the fix. Bare numbers are refused because 30 could mean seconds or milliseconds.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from difflib import get_close_matches
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, PlainSerializer, WithJsonSchema


@dataclass(frozen=True, slots=True)
class Range:
    """Number that lies between two bounds; `high` is None if no upper bound is known."""

    low: float
    high: float | None

    @classmethod
    def exactly(cls, number: float) -> Range:
        """Return the range of a known number."""
        return cls(float(number), float(number))

    def __add__(self, other: Range) -> Range:
        high = None if self.high is None or other.high is None else self.high + other.high
        return Range(self.low + other.low, high)

    def times(self, factor: float) -> Range:
        """Return both bounds multiplied."""
        return Range(self.low * factor, None if self.high is None else self.high * factor)


NOTHING = Range(0.0, 0.0)
Units = Mapping[str, int | str]  # factor of each unit, a text where a float would round
DURATION_UNITS_S: Units = {"us": "0.000001", "ms": "0.001", "s": 1, "m": 60, "h": 3600, "d": 86400}
_DECIMAL_SIZES = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
SIZE_UNITS_BYTES: Units = {**_DECIMAL_SIZES, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
_NUMBER = r"[0-9]{1,18}(?:\.[0-9]{1,40})?"
_QUANTITY = re.compile(rf"\s*(?P<sign>[-+]?)(?P<number>{_NUMBER})\s*(?P<unit>[^\s\d.]*)\s*")
_PARTS = re.compile(rf"{_NUMBER}[a-z]+")
_COMPOUND = re.compile("(?=[0-9])" + "".join(rf"({_NUMBER}{unit})?" for unit in ("d", "h", "m", "s", "ms", "us")))
# Editors check a text before its variables are filled in, so variables match too.
DURATION_PATTERN = rf"^({_NUMBER} ?(us|ms|s|m|h|d)({_NUMBER}(us|ms|s|m|h|d))*|.*\$\{{.*)$"

SHARE_PATTERN = rf"^({_NUMBER} ?%|.*\$\{{.*)$"


def parse_duration_s(value: object) -> float:
    """Return the seconds of a text such as `30s`, `500ms`, `2m`, `1h`, `1m30s`."""
    parts = _PARTS.findall(value) if isinstance(value, str) and _COMPOUND.fullmatch(value) else [value]
    return math.fsum(_parse(part, DURATION_UNITS_S, ("s", "ms"), "a time") for part in parts)


def parse_duration_ms(value: object) -> float:
    """Return the milliseconds of a text such as `500ms` or `2s`."""
    return float(Decimal(repr(parse_duration_s(value))) * 1000)


def parse_bytes(value: object) -> int:
    """Return the bytes of a text such as `24GiB` (2^30) or `24GB` (10^9)."""
    return round(_parse(value, SIZE_UNITS_BYTES, ("GiB", "MiB"), "a size"))


def parse_share(value: object) -> float:
    """Return the share of a percentage such as `30%`."""
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 1:
        percent = f"{Decimal(repr(value)) * 100:f}".rstrip("0").rstrip(".")
        raise ValueError(f"{value} has no unit; write `{percent}%` or `{value}%`")
    return _parse(value, {"%": "0.01"}, ("%",), "a share")


def format_share(share: float) -> str:
    """Return the percentage that `parse_share` reads back as the same share."""
    return f"{100 * share:.12g}%"


def format_duration(seconds: float) -> str:
    """Return the text that `parse_duration_s` reads back as the same number."""
    exact = Decimal(repr(seconds))
    return f"{_plain(exact * 1000)}ms" if exact and exact < 1 else f"{_plain(exact)}s"


def format_bytes(count: float) -> str:
    """Return a readable size, such as "1.5 GiB"."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.3g} {unit}"
        count /= 1024
    return f"{count:.3g} TiB"


def exact_bytes(count: float) -> str:
    """Return the shortest size that `parse_bytes` reads back as the same number, such as "16 GB"."""
    sizes = ((count / int(factor), unit) for unit, factor in SIZE_UNITS_BYTES.items() if int(factor) <= count)
    texts = (f"{size:.15g} {unit}" for size, unit in sizes)
    exact = (text for text in texts if "e" not in text and parse_bytes(text) == count)
    return min(exact, key=len, default=f"{count:.0f} B")


def enumerated(words: Sequence[str], last: str = "and") -> str:
    """Return words as a list in a sentence: `a, b and c`."""
    return f" {last} ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def format_duration_ms(milliseconds: float) -> str:
    """Return the text that `parse_duration_ms` reads back as the same number."""
    return f"{_plain(Decimal(repr(milliseconds)))}ms"


def _plain(number: Decimal) -> str:
    text = f"{number:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _parse(value: object, units: Units, likely: tuple[str, ...], noun: str) -> float:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(f"{noun} with its unit is needed, such as `30{likely[0]}`")
    match = _QUANTITY.fullmatch(str(value))
    if match is None:
        raise ValueError(f"{str(value)!r} is not {noun}; write a number and its unit, such as `30{likely[0]}`")
    number, unit = match["number"], match["unit"]
    if match["sign"] == "-":
        raise ValueError(f"{value} is negative; {noun} cannot be")
    if not unit:
        readings = " or ".join(f"`{number}{one}`" for one in likely)
        raise ValueError(f"{value} has no unit; write {readings}")
    if unit not in units:
        raise ValueError(f"{str(value)!r} has the unknown unit `{unit}`; {_near_unit(number, unit, units)}")
    return float(Decimal(number) * Decimal(units[unit]))


def _near_unit(number: str, unit: str, units: Units) -> str:
    folded = {name.casefold(): name for name in units}
    near = get_close_matches(unit.casefold(), folded, n=1, cutoff=0.5)
    hint = f"did you mean `{number}{folded[near[0]]}`? " if near else ""
    return f"{hint}known are {', '.join(units)}"


def _more_than_zero(value: float) -> float:
    if value <= 0:
        raise ValueError("must be more than 0")
    return value


def _duration_schema(*examples: str) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "pattern": DURATION_PATTERN, "examples": list(examples)})


_SECONDS: Any = (
    BeforeValidator(parse_duration_s),
    PlainSerializer(format_duration, return_type=str, when_used="json"),
    _duration_schema("30s", "500ms", "2m"),
)
Seconds = Annotated[float, *_SECONDS]
PositiveSeconds = Annotated[float, *_SECONDS, AfterValidator(_more_than_zero)]
PositiveMilliseconds = Annotated[
    float,
    BeforeValidator(parse_duration_ms),
    AfterValidator(_more_than_zero),
    PlainSerializer(format_duration_ms, return_type=str, when_used="json"),
    _duration_schema("500ms", "2s"),
]
