"""Rate that one replica holds: from the rates that a stored run tested, with what bounds it from both sides."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from statistics import NormalDist
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

    from harness.analysis.stats import Floats


class Holds(StrEnum):
    """Whether a replica keeps its requirements at a tested rate: beyond doubt, not beyond doubt, or unknown."""

    YES = "yes"
    NO = "no"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Capacity:
    """Largest rate of requests that one replica holds within its requirements.

    Attributes:
        lower_rps: Rate that holds beyond doubt; plans are made with it.
        value_rps: Likeliest rate, between both ends.
        upper_rps: Rate that surely fails; None if no tested rate failed ("at least").
        binding: Requirement that fails first, such as "ttft_ms p95 <= 500"; "" if none failed.
        users_or_rate: "rate" for an open loop, "users" for a closed one, where the numbers count users.
        source_run: Run that measured it, as a command takes it.
        load: Load of that run at the lower end.
        chances: Chance that a replica holds a rate, by ascending rate; empty if only the ends are known.
    """

    lower_rps: float
    value_rps: float
    upper_rps: float | None
    binding: str
    users_or_rate: str
    source_run: str
    load: str
    chances: tuple[tuple[float, float], ...] = field(default=())

    @property
    def is_bounded(self) -> bool:
        """Whether a rate failed, so that more than the lower end is known."""
        return self.upper_rps is not None

    @property
    def known_chances(self) -> tuple[tuple[float, float], ...]:
        """Chances by ascending rate; of an interval alone as `chances_of` has them."""
        return self.chances or chances_of(self.lower_rps, self.value_rps, self.upper_rps, tail=0.05)

    def draws(self, n: int, rng: np.random.Generator) -> Floats:
        """Return n draws of the rate that a replica holds, by the chances between the tested rates.

        Chances are joined by lines. No draw is above the highest tested rate; one below the lowest is 0, since nothing
        is known of it.
        """
        import numpy as np

        rates = np.array([rate for rate, _ in self.known_chances])
        falls = np.minimum.accumulate(np.array([chance for _, chance in self.known_chances]))
        drawn = rng.uniform(0.0, 1.0, n)
        ascending = falls[::-1] + np.arange(len(falls)) * 1e-12
        found: Floats = np.where(drawn <= falls[-1], rates[-1], np.interp(drawn, ascending, rates[::-1]))
        found[drawn > falls[0]] = 0.0
        return found


def chances_of(
    lower_rps: float, value_rps: float, upper_rps: float | None, *, tail: float
) -> tuple[tuple[float, float], ...]:
    """Return the chances of a rate of which only an interval is known: log-normal on both sides of its median.

    Args:
        tail: Chance that the rate is below the lower end, and above the upper one.
    """
    if upper_rps is None or not lower_rps < value_rps < upper_rps:
        return ((lower_rps, 1 - tail),)
    ends = {-1: math.log(value_rps / lower_rps), 1: math.log(upper_rps / value_rps)}
    beyond = NormalDist().inv_cdf(1 - tail)
    found = []
    for chance in _LEVELS:
        deviations = NormalDist().inv_cdf(1 - chance)
        width = ends[1 if deviations > 0 else -1] / beyond
        found.append((value_rps * math.exp(deviations * width), chance))
    return tuple(found)


_LEVELS = (0.9999, 0.999, 0.99, 0.95, 0.9, 0.75, 0.5, 0.25, 0.1, 0.05, 0.01)


@dataclass(frozen=True, slots=True)
class Tried:
    """Rate that a run tested.

    Attributes:
        chance: Chance that a replica holds it, by the measured intervals.
        binding: Requirement with the least chance.
        likely: Whether the values meet every requirement, whatever their intervals.
    """

    load: str
    rate_rps: float
    holds: Holds
    chance: float
    binding: str = ""
    likely: bool = False


def capacity_of(tested: Sequence[Tried], run: str) -> Capacity | None:
    """Return the capacity by the rates that a run tested; None if none of them holds beyond doubt.

    A rate above one that surely failed does not count: the system is not understood there.
    """
    ordered = sorted(tested, key=lambda one: one.rate_rps)
    failed = next((one for one in ordered if one.holds is Holds.NO), None)
    below = [one for one in ordered if failed is None or one.rate_rps < failed.rate_rps]
    held = [one for one in below if one.holds is Holds.YES]
    if not held:
        return None
    likely = [one.rate_rps for one in below if one.likely or one.holds is Holds.YES]
    return Capacity(
        lower_rps=held[-1].rate_rps,
        value_rps=max(likely),
        upper_rps=None if failed is None else failed.rate_rps,
        binding="" if failed is None else failed.binding,
        users_or_rate="rate",
        source_run=run,
        load=held[-1].load,
        chances=_falling([*below, *([] if failed is None else [failed])], held[-1].rate_rps),
    )


def _falling(ordered: Sequence[Tried], held_rps: float) -> tuple[tuple[float, float], ...]:
    """Return the chances by ascending rate; a higher rate is never likelier to hold than a lower one.

    Up to the rate that holds beyond doubt, the evidence of higher rates counts for lower ones; above it no more.
    """
    fallen = []
    least = 1.0
    for number, one in enumerate(ordered):
        known = [other.chance for other in ordered[number:] if other.rate_rps <= held_rps]
        least = min(least, max([one.chance, *known]))
        fallen.append((one.rate_rps, least))
    return tuple(fallen)
