"""Race of candidates: each that is left is started once in a round, until those that are surely worse are out; pure.

A gain is the logarithm of a number, or the number itself if it is a share, with the sign that makes more better. The
starts of a round share its seed and follow each other, so that what a round has in common cancels: the model is
candidate + round + noise. The noise is that of all candidates in the race, and for two of them never less than that of
their own differences: so the calm of the others throws few noisy candidates out.

The truly best candidate is thrown out with a chance of at most ALPHA: that is shared out among the looks and, within
each, among the comparisons with it (Bonferroni).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from harness.analysis.stats import Floats
from harness.comparison.change import one_sided_factor
from harness.scenario.compare import ALPHA

LEAST_ROUNDS, MOST_ROUNDS = 2, 32
LEAST_OWN = 2
"""Rounds from which the differences of two candidates have a noise of their own worth considering."""


@dataclass(frozen=True, slots=True)
class Rounds:
    """Least and greatest number of rounds. After each from the least on, candidates may be thrown out."""

    least: int
    most: int

    @property
    def looks(self) -> range:
        """Numbers of rounds after which the race is judged."""
        return range(self.least, self.most + 1)


@dataclass(frozen=True, slots=True)
class Behind:
    """How far a candidate is behind the best, in gains.

    Attributes:
        best: The best candidate at that look.
        at: Difference of the means, above 0.
        low, high: Ends of its interval. Each holds with 95 % for all comparisons of the race together.
    """

    best: int
    at: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Standing:
    """State of a race.

    Attributes:
        rounds: Rounds that all who are left have behind them.
        left: Candidates that are in the race, the best first; without a look, in their order.
        behind: How far each is behind the best: at its last look.
        settled: Whether no candidate that is left can be better than the best by more than the margin.
        ended: Why no further round begins; "" if one does.
    """

    rounds: int
    left: tuple[int, ...]
    behind: Mapping[int, Behind] = field(default_factory=dict)
    settled: bool = False
    ended: str = ""


def standing(gains: Mapping[int, Sequence[float]], rounds: Rounds, margin: float) -> Standing:
    """Return the state of a race, from the first round on: what was decided once is decided again.

    Args:
        gains: Of each candidate by its rounds, all of them known. Candidates that failed are left out.
        margin: Difference of gains that does not count.
    """
    left, behind = tuple(gains), dict[int, Behind]()
    whole = min((len(values) for values in gains.values()), default=0)
    for look in rounds.looks:
        whole = min((len(gains[one]) for one in left), default=0)
        if len(left) < 2 or whole < look:
            break
        table = np.array([gains[one][:look] for one in left])
        found = _behind(left, table, ALPHA / len(rounds.looks))
        best = found[0].best
        behind |= {one: each for one, each in zip(left, found, strict=True) if one != best}
        behind.pop(best, None)
        means = table.mean(axis=1)
        order = [left[place] for place in np.argsort(-means, kind="stable")]
        left = tuple(one for one in order if one == best or behind[one].low <= 0)
        if all(behind[one].low > -margin for one in left if one != best):
            return Standing(look, left, behind, settled=True, ended=_why(left))
    done = min(whole, rounds.most)
    if len(left) < 2:
        return Standing(done, left, behind, settled=True, ended=_why(left))
    return Standing(done, left, behind, ended="all rounds are measured" if done >= rounds.most else "")


def _why(left: Sequence[int]) -> str:
    if len(left) > 1:
        return "those that are left differ by less than the margin"
    return "one is left" if left else "none is left"


def _behind(left: Sequence[int], table: Floats, alpha: float) -> list[Behind]:
    """Return how far each candidate is behind the best. table: a row for each, a column for each round."""
    count, rounds = table.shape
    means = table.mean(axis=1)
    best = int(np.argmax(means))
    residuals = table - means[:, None] - table.mean(axis=0) + table.mean()
    degrees = (count - 1) * (rounds - 1)
    shared = 2 * float((residuals**2).sum()) / degrees
    factor = one_sided_factor(float(degrees), alpha / (count - 1))
    found = []
    for row, mean in zip(table, means, strict=True):
        own = float((table[best] - row).var(ddof=1))
        half, at = factor * math.sqrt(max(shared, own) / rounds), float(means[best] - mean)
        found.append(Behind(left[best], at, at - half, at + half))
    return found
