"""Check of a plan's rule against replicas that were measured: predicted first, then compared, never refitted."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from harness.capacity.held_out import HeldOut
from harness.capacity.measured import Candidate, Point, check_alike
from harness.capacity.prediction import Predicted, Setting, largest_rate, predict
from harness.capacity.rate import Capacity, Holds
from harness.errors import UsageError
from harness.scenario.plan import Assumptions

NUMBERS = ("ttft_p95_ms", "output_tokens_per_s")
"""Numbers of a rate that are predicted and scored, beside whether it holds."""


@dataclass(frozen=True, slots=True)
class Checked:
    """Rate that replicas were tested at.

    Attributes:
        numbers: Measured numbers by name; None where they are unknown.
        intervals: Their 95 % intervals.
    """

    rate_rps: float
    predicted: Predicted
    measured: Holds
    numbers: Mapping[str, float | None] = field(default_factory=dict)
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    @property
    def is_wrong(self) -> bool:
        """Whether the likelier outcome was predicted wrongly."""
        chance = self.predicted.chance
        if chance is None or self.measured is Holds.UNKNOWN:
            return False
        return (chance >= 0.5) is not (self.measured is Holds.YES)

    def error(self, name: str) -> float | None:
        """Return the natural logarithm of predicted / measured of a number; None where one of both is unknown."""
        return log_error(getattr(self.predicted, name), self.numbers.get(name))

    def is_inside(self, name: str) -> bool | None:
        """Return whether the prediction of a number is inside of its measured interval; None without either."""
        predicted, (low, high) = getattr(self.predicted, name), self.intervals.get(name, (math.nan, math.nan))
        if self.error(name) is None or math.isnan(low) or math.isnan(high):
            return None
        return bool(low <= predicted <= high)


@dataclass(frozen=True, slots=True)
class Validation:
    """Prediction from one replica, and what some replicas did.

    Attributes:
        predicted_rps: Rate that the replicas hold by the likeliest rate of one: replicas * rate / imbalance.
        capacity: What they hold as measured; None if no tested rate holds.
    """

    run: str
    predicted_rps: float
    capacity: Capacity | None
    rates: tuple[Checked, ...]

    @property
    def error(self) -> tuple[float | None, float | None]:
        """Least and largest error of the predicted rate, as shares: against the rate that fails, and that that holds.

        None where that rate is not known.
        """
        if self.capacity is None:
            return None, None
        upper = self.capacity.upper_rps
        least = None if upper is None else self.predicted_rps / upper - 1
        return least, self.predicted_rps / self.capacity.lower_rps - 1

    @property
    def rate_error(self) -> float | None:
        """Natural logarithm of predicted / likeliest measured rate; None unless a rate holds and another one fails."""
        known = self.capacity if self.capacity is not None and self.capacity.is_bounded else None
        return None if known is None else log_error(self.predicted_rps, known.value_rps)


def log_error(predicted: float | None, measured: float | None) -> float | None:
    """Return the natural logarithm of predicted / measured; None where it has none."""
    if predicted is None or measured is None or not (predicted > 0 and measured > 0):
        return None
    return math.log(predicted / measured)


def validate(one: Candidate, several: Sequence[Candidate], replicas: int, assumed: Assumptions) -> Validation:
    """Return what a plan's rule predicts of some replicas that were measured already, and what they did.

    Args:
        one: Candidate of one replica, with a capacity.
        several: Candidates of the run against the replicas; the one of the same configuration counts.

    Raises UsageError if that run has no such configuration, or other requirements or requests.
    """
    other = _same(one, several)
    check_alike([one, other])
    point = HeldOut(other.run, replicas=replicas)
    return _validation(
        one, other, point, assumed, [setting_of(point, tried.rate_rps, assumed, tried.cv) for tried in other.points]
    )


def scored(one: Candidate, other: Candidate, point: HeldOut, assumed: Assumptions) -> Validation:
    """Return what a plan's rule predicts at the rates of a held-out measurement, and what was measured there."""
    return _validation(
        one, other, point, assumed, [setting_of(point, tried.rate_rps, assumed) for tried in other.points]
    )


def _validation(
    one: Candidate, other: Candidate, point: HeldOut, assumed: Assumptions, settings: Sequence[Setting]
) -> Validation:
    known = one.capacity
    assert known is not None
    # A search chooses its rates itself, so that none of them was predicted.
    pairs = [] if other.searched is not None else zip(other.points, settings, strict=True)
    rates = tuple(_checked(tried, predict(one, setting, assumed.seed)) for tried, setting in pairs)
    return Validation(other.run, predicted_rate(known, point, assumed), other.capacity, rates)


def _checked(tried: Point, predicted: Predicted) -> Checked:
    # Under a backlog that grows TTFT depends on how long one looks.
    known = {} if tried.overloaded or tried.why_unknown else tried.numbers
    numbers = {name: _known(known.get(name, math.nan)) for name in NUMBERS}
    return Checked(tried.rate_rps, predicted, tried.tested().holds, numbers, tried.intervals)


def setting_of(point: HeldOut, rate_rps: float, assumed: Assumptions, cv: float | None = None) -> Setting:
    """Return the setting of a held-out point at a rate. cv: variation of its arrivals, where they were measured."""
    return Setting(rate_rps, point.replicas, point.cv if cv is None else cv, point.output, assumed.imbalance)


def predicted_rate(known: Capacity, point: HeldOut, assumed: Assumptions) -> float:
    """Return the largest rate that is predicted of the replicas of a held-out point."""
    return largest_rate(known, setting_of(point, known.value_rps, assumed))


def planned_rate(known: Capacity, point: HeldOut, assumed: Assumptions) -> float | None:
    """Return the rate to measure a point at: a share of what its replicas surely hold; None for a search."""
    if point.rate is None:
        return None
    unit = setting_of(point, 1.0, assumed)
    return float(f"{point.rate * known.lower_rps / unit.busiest_rps:.4g}")


def _known(number: float) -> float | None:
    return number if math.isfinite(number) else None


def _same(one: Candidate, several: Sequence[Candidate]) -> Candidate:
    """Return the candidate of the same configuration; replicas behind an address do not say their level."""
    found = [other for other in several if other.keys == one.keys]
    found = found or [other for other in several if other.keys[2] in ("", one.keys[2])]
    if len(found) != 1:
        named = ", ".join(other.name for other in several)
        raise UsageError(f"--validate {several[0].run}: it has {named}, and none of them is {one.name}")
    return found[0]


def predictions(one: Candidate, point: HeldOut, rate_rps: float | None, assumed: Assumptions) -> dict[str, Any]:
    """Return the predictions at a held-out point as plain data, before it is measured."""
    known = one.capacity
    assert known is not None
    rates = []
    if rate_rps is not None:
        predicted = predict(one, setting_of(point, rate_rps, assumed), assumed.seed)
        rates.append(_rate(Checked(rate_rps, predicted, Holds.UNKNOWN)))
    empty = dict.fromkeys(("run", "holds_rps", "fails_rps", "error_least", "error_largest", "rate_error"))
    return _asked(one, point) | empty | {"predicted_rps": predicted_rate(known, point, assumed), "rates": rates}


def as_record(found: Validation, one: Candidate, point: HeldOut) -> dict[str, Any]:
    """Return a check as plain data."""
    least, largest = found.error
    capacity = found.capacity
    return _asked(one, point) | {
        "run": found.run,
        "predicted_rps": found.predicted_rps,
        "holds_rps": None if capacity is None else capacity.lower_rps,
        "fails_rps": None if capacity is None else capacity.upper_rps,
        "error_least": least,
        "error_largest": largest,
        "rate_error": found.rate_error,
        "rates": [_rate(rate) for rate in found.rates],
    }


def _asked(one: Candidate, point: HeldOut) -> dict[str, Any]:
    return {
        "asked": point.text,
        "kind": point.kind.value,
        "predicted_from": one.run,
        "configuration": one.name,
        "replicas": point.replicas,
        "cv": point.cv,
        "output": point.output,
    }


def _rate(one: Checked) -> dict[str, Any]:
    numbers = {
        name: {
            "predicted": getattr(one.predicted, name),
            "measured": one.numbers.get(name),
            "interval": [_known(end) for end in one.intervals.get(name, ())],
            "log_error": one.error(name),
            "inside": one.is_inside(name),
        }
        for name in NUMBERS
    }
    return {
        "rate_rps": one.rate_rps,
        "load": one.predicted.load,
        "chance": one.predicted.chance,
        "measured": one.measured.value,
        "wrong": one.is_wrong,
        "why": [*one.predicted.why],
        **numbers,
    }
