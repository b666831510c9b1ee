"""Requirements of a rate: its limits and its SLO, with how sure a measured number keeps each of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from harness.capacity.rate import Holds
from harness.verdict.limits.held import LIKELY, Held, Outcome

NORMAL = 1.959964
"""Standard deviations from the middle of a 95 % interval to its ends."""


@dataclass(frozen=True, slots=True)
class Requirement:
    """Bound on a measured number.

    Attributes:
        text: As written, such as "ttft_ms p95 <= 500"; of an SLO its share: "attainment >= 95%".
        value, low, high: The number with its 95 % interval; NaN where unknown.
        n_eff: Effective sample size of a share; NaN for other numbers.
        exact: Whether it is a fact without an interval, such as a maximum.
        invalid: Why the number says nothing, "" if it does.
    """

    text: str
    metric: str
    statistic: str
    op: str
    bound: float
    value: float
    low: float = math.nan
    high: float = math.nan
    n_eff: float = math.nan
    unit: str = ""
    exact: bool = False
    invalid: str = ""

    @property
    def _held(self) -> Held:
        return Held(self.op, self.bound, self.value, self.low, self.high, self.exact)

    @property
    def holds(self) -> Holds:
        """Whether the whole interval is on one side of the bound. A censored number may be beyond it for sure."""
        outcome = self._held.outcome
        if self.invalid or outcome is Outcome.CANNOT_TELL:
            return Holds.UNKNOWN
        if self._held.certainty == LIKELY and not math.isnan(self.value):
            return Holds.UNKNOWN
        return Holds.YES if outcome is Outcome.PASS else Holds.NO

    @property
    def is_met(self) -> bool:
        """Whether the value meets the bound, however sure."""
        return not self.invalid and self._held.outcome is Outcome.PASS

    @property
    def chance(self) -> float:
        """Chance that the true number meets the bound.

        Of a share by the Beta distribution of its requests (Jeffreys' prior), of others by a log-normal distribution
        with the interval's distance to the bound. 0 or 1 for facts, 0.5 if nothing is known.
        """
        if self.invalid:
            return 0.5
        if self.unit == "share" and self.n_eff > 0 and math.isfinite(self.value):
            return self._chance_of_share()
        if self.holds is not Holds.UNKNOWN and not (self.value > 0 and self.bound > 0):
            return float(self.holds is Holds.YES)
        end = self.high if (self.bound > self.value) else self.low
        if not (self.value > 0 and self.bound > 0 and math.isfinite(end) and end > 0) or end == self.value:
            return {Holds.YES: 1.0, Holds.NO: 0.0, Holds.UNKNOWN: 0.5}[self.holds]
        deviations = NORMAL * math.log(self.bound / self.value) / abs(math.log(end / self.value))
        below = 0.5 * math.erfc(-deviations / math.sqrt(2))
        return below if self.op[0] == "<" else 1 - below

    def _chance_of_share(self) -> float:
        from scipy.special import betainc

        good = self.value * self.n_eff
        below = float(betainc(good + 0.5, self.n_eff - good + 0.5, min(1.0, self.bound)))
        return below if self.op[0] == "<" else 1 - below

    def laxer(self, factor: float) -> Requirement:
        """Return the same with a bound that is easier to meet: of a share its distance from 1, else the bound."""
        if self.unit == "share":
            lax = self.bound * factor if self.op[0] == "<" else 1 - (1 - self.bound) * factor
        else:
            lax = self.bound * factor if self.op[0] == "<" else self.bound / factor
        return replace(self, bound=lax)


def together(found: Sequence[Requirement]) -> tuple[Holds, float, str]:
    """Return whether all hold, the chance that they do as if independent, and the one with the least chance."""
    words = [one.holds for one in found]
    holds = Holds.NO if Holds.NO in words else Holds.UNKNOWN if Holds.UNKNOWN in words else Holds.YES
    chance = math.prod(one.chance for one in found)
    least = min(found, key=lambda one: one.chance)
    return holds, chance, least.text
