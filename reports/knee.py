"""Knee of a sweep: between which loads more load costs latency or good requests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from reports.format import digits

STEEP, LEAST_GOOD = 2.0, 0.9


@dataclass(frozen=True, slots=True)
class Knee:
    """Loads between which the knee lies.

    Attributes:
        why: What changed at the upper one, in words.
    """

    below: float
    above: float
    why: str


def knee(
    loads: Sequence[float],
    p95: Sequence[float],
    share: Sequence[float] = (),
    names: tuple[str, str] = ("p95", "goodput"),
) -> Knee | None:
    """Return the knee of ascending loads, None if none of them is beyond it; unknown numbers are NaN.

    A load is beyond the knee if its p95 is more than STEEP times that of the lightest, or if its share falls below
    LEAST_GOOD, which the lightest load reached.

    Args:
        share: Requests that meet the SLO, or completed ones, of those asked for.
        names: Of both numbers, for `why`.
    """
    if not loads:
        return None
    shares = list(share) or [float("nan")] * len(loads)
    falls = shares[0] >= LEAST_GOOD
    for number in range(1, len(loads)):
        grown = p95[number] / p95[0] if p95[0] > 0 else float("nan")
        if grown > STEEP:
            return Knee(loads[number - 1], loads[number], f"{names[0]} grows {digits(grown, 2)} times")
        if falls and shares[number] < LEAST_GOOD:
            percent = digits(shares[number] * 100, 3)
            return Knee(loads[number - 1], loads[number], f"{names[1]} falls to {percent}\u202f%")
    return None
