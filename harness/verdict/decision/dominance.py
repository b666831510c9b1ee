"""Pareto dominance between configurations, taking confidence intervals into account.

A row dominates another that has the same figures if it is nowhere worse, and better beyond chance in one at least: the
intervals do not meet, or a comparison request by request shows it to be faster. A value within a narrow interval of the
other's is not worse, unless that comparison shows it to be. Such differences can add up along a chain, so that rows
dominate each other in a circle; then none of the circle does. Rows with different figures are not compared: an unknown
number neither wins nor loses.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from harness.verdict.thresholds import WIDE_INTERVAL

Name = TypeVar("Name", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Figure:
    """A number of which more is better, and the ends of its interval; NaN where they are open or unknown."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, value: float, low: float, high: float, *, more_is_better: bool) -> Figure:
        """Take a number of either direction."""
        return cls(value, low, high) if more_is_better else cls(-value, -high, -low)

    @classmethod
    def alike_within(cls, value: float, share: float) -> Figure:
        """Take a reading without an interval, of which less is better, and only larger differences count."""
        return cls.of(value, value, value * (1 + share), more_is_better=False)


def better(one: Figure, other: Figure) -> bool:
    """Return whether it is better beyond chance; never with an unknown end."""
    return one.value > other.value and one.low > other.high


def not_worse(one: Figure, other: Figure) -> bool:
    """Return whether a value is as good as the other's, or lies within that one's interval if it is not wide.

    Its own interval does not count: less knowledge must not make a row win, or the other lose.
    """
    narrow = other.high - other.low <= WIDE_INTERVAL.value * abs(other.value)
    return one.value >= (min(other.low, other.value) if narrow else other.value)


def dominates(one: Mapping[str, Figure], other: Mapping[str, Figure]) -> bool:
    """Return whether one row dominates another with the same figures, by their names."""
    return set(one) == set(other) and _is_better(one, other)


def _is_better(one: Mapping[str, Figure], other: Mapping[str, Figure]) -> bool:
    """Return whether one row dominates the other in the figures that both have."""
    return _is_nowhere_worse(one, other) and any(better(one[name], other[name]) for name in one if name in other)


def _is_nowhere_worse(one: Mapping[str, Figure], other: Mapping[str, Figure]) -> bool:
    return all(not_worse(figure, other[name]) for name, figure in one.items() if name in other)


def dominating(
    rows: Mapping[Name, Mapping[str, Figure]], faster: Callable[[Name, Name], bool] = lambda one, other: False
) -> dict[Name, list[Name]]:
    """Return for each row those that dominate it and are not, over others, dominated by it.

    faster: returns whether a comparison request by request shows the first of two to be the faster one.
    """

    def beats(one: Name, other: Name) -> bool:
        mine, theirs = rows[one], rows[other]
        if set(mine) != set(theirs) or not _is_nowhere_worse(mine, theirs) or faster(other, one):
            return False
        return _is_better(mine, theirs) or faster(one, other)

    direct = {name: [other for other in rows if other != name and beats(other, name)] for name in rows}
    above = {name: _above(name, direct) for name in rows}
    return {name: [other for other in others if name not in above[other]] for name, others in direct.items()}


def undecided(rows: Mapping[Name, Mapping[str, Figure]]) -> set[Name]:
    """Return the rows that another would dominate, were it not for figures that one of the two lacks."""
    return {
        name
        for name, own in rows.items()
        if any((own.keys() < one.keys() or one.keys() < own.keys()) and _is_better(one, own) for one in rows.values())
    }


def _above(name: Name, direct: Mapping[Name, Sequence[Name]]) -> set[Name]:
    """Return those that dominate a row, those that dominate them, and so on."""
    found: set[Name] = set()
    waiting = list(direct[name])
    while waiting:
        one = waiting.pop()
        if one not in found:
            found.add(one)
            waiting += direct[one]
    return found
