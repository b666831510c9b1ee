"""Which rows of a choice are beaten by another whatever the user values: dominance that respects uncertainty.

A row is beaten by another that is at least as good in every figure the beaten row has, and better beyond chance in one
at least (their intervals do not meet). What a row was not measured in is neither held against it nor counted for it:
the other must have all figures that it has. So the rows that nobody beats (the front) are never none.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import TypeVar

Name = TypeVar("Name", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Figure:
    """A number of which more is better, and the ends of its interval; NaN where they are unknown."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, value: float, low: float, high: float, *, more_is_better: bool) -> Figure:
        """From a number of either kind."""
        return cls(value, low, high) if more_is_better else cls(-value, -high, -low)


def better(one: Figure, other: Figure) -> bool:
    """Whether it is better beyond chance; never where an interval is unknown."""
    return one.value > other.value and one.low > other.high


def beats(one: Mapping[str, Figure], other: Mapping[str, Figure]) -> bool:
    """Whether one row dominates the other; both by the name of the figure."""
    return (
        set(other) <= set(one)
        and all(one[name].value >= figure.value for name, figure in other.items())
        and any(better(one[name], figure) for name, figure in other.items())
    )


def beaten_by(rows: Mapping[Name, Mapping[str, Figure]]) -> dict[Name, list[Name]]:
    """For each row those that dominate it, in their order; the rows with none are the front."""
    return {
        name: [other for other, theirs in rows.items() if other != name and beats(theirs, own)]
        for name, own in rows.items()
    }
