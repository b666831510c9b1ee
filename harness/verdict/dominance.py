"""Which rows of a choice are beaten by another whatever the user values: dominance that respects uncertainty.

A row is beaten by another that is nowhere worse, in any figure the beaten row has, and better beyond chance in one at
least (their intervals do not meet). A value that lies within what the other's may be is not worse: a difference that
chance or a tolerance explains decides nothing. What a row was not measured in is neither held against it nor counted
for it: the other must have all figures that it has. Small differences can add up along a chain, so that rows beat each
other in a circle; those are then beaten by none of the circle. So the rows that nobody beats (the front) are never
none.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
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

    @classmethod
    def alike_within(cls, value: float, share: float, *, more_is_better: bool) -> Figure:
        """From a reading without an interval, of which only larger differences count."""
        worse = value * (1 - share) if more_is_better else value * (1 + share)
        ends = (worse, value) if more_is_better else (value, worse)
        return cls.of(value, *ends, more_is_better=more_is_better)


def better(one: Figure, other: Figure) -> bool:
    """Whether it is better beyond chance; never where an interval is unknown."""
    return one.value > other.value and one.low > other.high


def not_worse(one: Figure, other: Figure) -> bool:
    """Whether a value is as good as the other's, or as good as that may be. It is judged by the value, not by its own
    interval: knowing less of a row must not make it win.
    """
    return one.value >= (other.value if math.isnan(other.low) else min(other.low, other.value))


def beats(one: Mapping[str, Figure], other: Mapping[str, Figure]) -> bool:
    """Whether one row dominates the other; both by the name of the figure."""
    return (
        set(other) <= set(one)
        and all(not_worse(one[name], figure) for name, figure in other.items())
        and any(better(one[name], figure) for name, figure in other.items())
    )


def beaten_by(rows: Mapping[Name, Mapping[str, Figure]]) -> dict[Name, list[Name]]:
    """For each row those that dominate it and are not, over others, dominated by it, in their order; the rows with none
    are the front.
    """
    direct = {
        name: [other for other, theirs in rows.items() if other != name and beats(theirs, own)]
        for name, own in rows.items()
    }
    above = {name: _above(name, direct) for name in rows}
    return {name: [other for other in others if name not in above[other]] for name, others in direct.items()}


def _above(name: Name, direct: Mapping[Name, Sequence[Name]]) -> set[Name]:
    """Those that beat a row, those that beat them, and so on."""
    found: set[Name] = set()
    waiting = list(direct[name])
    while waiting:
        one = waiting.pop()
        if one not in found:
            found.add(one)
            waiting += direct[one]
    return found
