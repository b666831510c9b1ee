"""What a plan's rule predicts at a point that was not measured: whether it holds, TTFT p95, and output tokens/s."""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass

from harness.capacity.measured import Candidate, Point
from harness.capacity.rate import Capacity
from harness.capacity.replicas import ROUNDING
from harness.capacity.uncertainty import Draws
from harness.scenario.plan import Assumptions

P95 = 1.644854
"""Standard deviations from the median of a normal distribution to its 95th percentile."""
WAITING = 2.0
"""Median TTFT / that at the lowest tested rate, from which on most requests wait."""
ALIKE = 0.01
"""Share within which two rates, or two variations of arrivals, count as the same."""
UNSURE_BURSTS = "whether burstier arrivals hold is not predicted: headroom is for them"
UNSURE_ABOVE = "whether it holds is not predicted above the highest tested rate: none failed"


@dataclass(frozen=True, slots=True)
class Setting:
    """Replicas and their load.

    Attributes:
        rate_rps: Requests per second to all replicas.
        cv: Coefficient of variation of the gaps between arrivals; None: as measured.
        output: Factor on the measured lengths of the replies.
        imbalance: Rate of the busiest replica / the mean.
    """

    rate_rps: float
    replicas: int = 1
    cv: float | None = None
    output: float = 1.0
    imbalance: float = 1.0

    @property
    def busiest_rps(self) -> float:
        """Rate of the busiest replica, in replies of the measured length: longer ones count as more of them."""
        return self.rate_rps * self.output / self.replicas * (self.imbalance if self.replicas > 1 else 1.0)


@dataclass(frozen=True, slots=True)
class Predicted:
    """Predictions at one rate; None where the rule has none, with the sentence that says why.

    Attributes:
        chance: Chance that the requirements hold.
        load: Rate of the busiest replica / the likeliest rate that one holds.
    """

    chance: float | None
    ttft_p95_ms: float | None
    output_tokens_per_s: float | None
    load: float
    why: tuple[str, ...] = ()


def predict(one: Candidate, setting: Setting, seed: int) -> Predicted:
    """Return what a plan's rule predicts from one replica, which has a capacity.

    Nothing is predicted beyond what was tested. Rates between tested ones are joined by lines in the logarithm of TTFT.
    """
    known = one.capacity
    assert known is not None
    measured = one.point(known.load)
    bursty = _is_other(setting.cv, measured.cv)
    chance = None if bursty else _chance(known, setting, seed)
    ttft, why = _ttft(one, setting, measured)
    tokens, why_not = _tokens(known, setting, measured.tokens.output)
    unsure = "" if chance is not None else UNSURE_BURSTS if bursty else UNSURE_ABOVE
    reasons = tuple(filter(None, (unsure, why, why_not)))
    return Predicted(chance, ttft, tokens, setting.busiest_rps / known.value_rps, reasons)


def largest_rate(known: Capacity, setting: Setting) -> float:
    """Return the rate that replicas hold by the likeliest rate of one."""
    each = known.value_rps * setting.replicas / setting.output
    return each / (setting.imbalance if setting.replicas > 1 else 1.0)


def _chance(known: Capacity, setting: Setting, seed: int) -> float | None:
    """Return the chance that the replicas hold; None above the highest tested rate if no rate failed."""
    highest, busiest, rate_rps = known.known_chances[-1][0], setting.busiest_rps, setting.rate_rps * setting.output
    if not known.is_bounded and busiest > highest:
        if busiest > highest * (1 + ALIKE):
            return None
        rate_rps *= highest / busiest  # which is the same but for its rounding
    assumed = Assumptions.model_construct(imbalance=setting.imbalance, seed=seed)
    return Draws.of(known, rate_rps, assumed).chance(setting.replicas)


def _tokens(known: Capacity, setting: Setting, each: float | None) -> tuple[float | None, str]:
    """Return output tokens/s; None and why where they are not predicted. each: tokens of a reply as measured."""
    if each is None:
        return None, "tokens/s are not predicted: the tokens of a reply are unknown"
    if setting.busiest_rps > (known.upper_rps or known.value_rps) + ROUNDING:
        return None, "tokens/s are not predicted above the rate that a replica holds"
    return setting.rate_rps * each * setting.output, ""


def _is_other(cv: float | None, measured: float | None) -> bool:
    return cv is not None and (measured is None or abs(cv - measured) > ALIKE)


def _ttft(one: Candidate, setting: Setting, measured: Point) -> tuple[float | None, str]:
    """Return TTFT p95 in ms; None and why where it is not predicted."""
    sound = [point for point in one.points if not point.overloaded and not point.why_unknown]
    stable = [point for point in sound if _is_known(point.numbers["ttft_p95_ms"])]
    between = _between(stable, setting.busiest_rps)
    if between is None:
        tested = f"{stable[0].rate_rps:.4g} to {stable[-1].rate_rps:.4g} were tested" if stable else "none was tested"
        return None, f"TTFT is not predicted at {setting.busiest_rps:.4g} requests/s for a replica: {tested}"
    if not _is_other(setting.cv, measured.cv):
        return between, ""
    assert setting.cv is not None
    if not _most_wait(stable, setting.busiest_rps):
        return None, "TTFT of burstier arrivals is predicted only where most requests wait"
    scaled = _burstier(between, stable[0], measured.cv, setting.cv)
    return (
        scaled,
        "" if scaled is not None else "TTFT is not predicted: the variation of arrivals or replies is unknown",
    )


def _most_wait(stable: list[Point], rate_rps: float) -> bool:
    """Return whether more than half of the requests wait at a rate: the median TTFT is twice that at the lowest rate.

    Where few wait, p95 depends on how many arrive at once more than on how long they wait.
    """
    at, lowest = (_between(stable, rate, "ttft_p50_ms") for rate in (rate_rps, stable[0].rate_rps))
    return at is not None and lowest is not None and at >= WAITING * lowest


def _between(stable: list[Point], rate_rps: float, name: str = "ttft_p95_ms") -> float | None:
    """Return a latency at a rate by the tested ones on both sides of it; None outside of them, or if it is unknown."""
    for point in stable:
        if abs(point.rate_rps / rate_rps - 1) <= ALIKE:
            found = point.numbers.get(name, math.nan)
            return found if _is_known(found) else None
    place = bisect_left([point.rate_rps for point in stable], rate_rps)
    if not 0 < place < len(stable):
        return None
    below, above = stable[place - 1], stable[place]
    share = (rate_rps - below.rate_rps) / (above.rate_rps - below.rate_rps)
    ends = [point.numbers.get(name, math.nan) for point in (below, above)]
    if not all(map(_is_known, ends)):
        return None
    return math.exp(math.log(ends[0]) + share * math.log(ends[1] / ends[0]))


def _burstier(ttft_ms: float, lowest: Point, before: float | None, after: float) -> float | None:
    """Return TTFT p95 with other arrivals: what is above the unloaded TTFT grows with Ca^2 + Cs^2 (Allen and Cunneen).

    The unloaded TTFT is the median at the lowest tested rate. Cs^2 is the variation of log-normal service times with
    the median and p95 of E2E there.
    """
    unloaded, median, p95 = (lowest.numbers.get(name, math.nan) for name in ("ttft_p50_ms", "e2e_p50_ms", "e2e_p95_ms"))
    if before is None or not all(map(_is_known, (unloaded, median, p95))):
        return None
    services = math.exp((math.log(p95 / median) / P95) ** 2) - 1
    if before**2 + services <= 0:
        return None
    return unloaded + max(0.0, ttft_ms - unloaded) * (after**2 + services) / (before**2 + services)


def _is_known(value: float) -> bool:
    return math.isfinite(value) and value > 0
