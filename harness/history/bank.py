"""Bank of simulated series whose truth is known: noise of several kinds, steps, ramps, spikes and gaps; pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np

from harness.analysis.stats import Floats
from harness.history.board import Alert, Told, make_board
from harness.history.detector.nights import Nights
from harness.history.detector.noise import residuals
from harness.history.detector.states import State, judge
from harness.history.detector.steps import POLICY, Policy, Shape
from harness.history.series import Key, Point, Series
from harness.scenario.margins import Scale

Draw = Callable[[np.random.Generator, int], Floats]
KEY = Key("selftest", "load", "", "ttft_ms", "p50", "model", "engine", "level", "", "machine")
LEVEL = 100.0
BEFORE = 100
"""Nights that a series has before anything is counted."""
_FIRST = datetime(2026, 1, 1, 2, tzinfo=UTC)
_BLOCK = 7


def normal(rng: np.random.Generator, n: int) -> Floats:
    """Return independent normal nights of unit variance."""
    return rng.normal(size=n)


def autoregressive(rho: float) -> Draw:
    """Return the draw of nights of unit variance that remember the one before."""

    def draw(rng: np.random.Generator, n: int) -> Floats:
        values = rng.normal(size=n)
        for night in range(1, n):
            values[night] = rho * values[night - 1] + math.sqrt(1 - rho**2) * values[night]
        return values

    return draw


def heavy(rng: np.random.Generator, n: int) -> Floats:
    """Return nights of Student's distribution with three degrees of freedom, of unit variance."""
    return rng.standard_t(3, n) / math.sqrt(3)


def slow(rng: np.random.Generator, n: int) -> Floats:
    """Return normal nights, of which 3 % are slower by eight standard deviations."""
    return rng.normal(size=n) + 8 * (rng.random(n) < 0.03)


MODELS: dict[str, Draw] = {
    "normal": normal,
    "AR(0.3)": autoregressive(0.3),
    "AR(0.6)": autoregressive(0.6),
    "t3": heavy,
    "3 % slow nights": slow,
}


def resampled(parts: Sequence[Floats]) -> Draw:
    """Return the draw of nights from the residuals of a real series, in blocks of a week that keep their order."""
    together = np.concatenate(parts)

    def draw(rng: np.random.Generator, n: int) -> Floats:
        starts = rng.integers(0, max(1, len(together) - _BLOCK + 1), -(-n // _BLOCK))
        return np.concatenate([together[start : start + _BLOCK] for start in starts])[:n]

    return draw


def own_residuals(series: Series) -> tuple[list[Floats], Nights] | None:
    """Return the nights of a series around their levels, since its last reset; None for fewer than 30."""
    course = judge(series, series.points[-1].at).course if series.points else None
    if course is None:
        return None
    nights, begin = course.nights, course.nights.start
    if len(nights.values) - begin < 30:
        return None
    cuts = [step.night - begin for step in course.told if step.night > begin]
    return residuals(nights.values[begin:], cuts), nights


def simulated(logs: Floats, scale: Scale = Scale.RATIO, key: Key = KEY) -> Series:
    """Return a series of one number a night, from relative changes or points around a level; NaN: a missing night."""
    values = LEVEL * np.exp(logs) if scale is Scale.RATIO else logs
    points = tuple(
        Point(_FIRST + timedelta(days=night), float(value))
        for night, value in enumerate(values)
        if math.isfinite(value)
    )
    return Series(key, "lower", points)


def replay(series: Series, begin: int = BEFORE, policy: Policy = POLICY) -> Iterator[tuple[int, Alert]]:
    """Yield every alert with the night on which it is told: a board is made each night of the last `policy.recall`.

    Nights count from the first point of the series.
    """
    first = series.points[0].at
    told: list[Told] = []
    for last in range(begin, len(series.points)):
        known = Series(series.key, series.better, series.points[max(0, last + 1 - policy.recall) : last + 1])
        now = known.points[-1].at
        for alert in make_board([known], now, told=told, policy=policy).new:
            told.append(alert.as_told(now))
            yield (now - first).days, alert


@dataclass(frozen=True, slots=True)
class FalseAlarms:
    """Alerts on series that never change.

    Attributes:
        years: Series-years that were judged night by night.
    """

    alerts: int
    years: float

    @property
    def rate(self) -> float:
        """Alerts per series-year."""
        return self.alerts / self.years if self.years else math.nan

    @property
    def most(self) -> float:
        """Upper end of the rate's one-sided 95 % interval (Poisson)."""
        from scipy.special import gammaincinv

        return float(gammaincinv(self.alerts + 1, 0.95)) / self.years if self.years else math.nan


def false_alarms(
    draw: Draw, series: int, nights: int, spread: float, seed: int, policy: Policy = POLICY, scale: Scale = Scale.RATIO
) -> FalseAlarms:
    """Return the alerts of `series` series of `nights` nights after BEFORE others. spread: Factor of the draw."""
    rng = np.random.default_rng(seed)
    alerts = 0
    for _ in range(series):
        alerts += sum(1 for _ in replay(simulated(spread * draw(rng, BEFORE + nights), scale), policy=policy))
    return FalseAlarms(alerts, series * nights / 365)


@dataclass(frozen=True, slots=True)
class Found:
    """How steps of one size were found.

    Attributes:
        delays: Nights from the first one of the new level until it is told, both included; infinite if it is not.
        misplaced: Nights between the place that is told and the true one, of those that are told as a step.
    """

    delays: Floats
    misplaced: Floats

    def within(self, nights: int) -> float:
        """Share that is told within so many nights."""
        return float((self.delays <= nights).mean())

    @property
    def delay(self) -> float:
        """Median delay in nights."""
        return float(np.median(self.delays))

    @property
    def placed(self) -> float:
        """Share of those found that are placed right to a night."""
        return float((np.abs(self.misplaced) <= 1).mean()) if len(self.misplaced) else math.nan


def steps_found(
    draw: Draw, size: float, series: int, spread: float, seed: int, policy: Policy = POLICY, missing: float = 0.0
) -> Found:
    """Return how steps are found. size: relative, 0.03 for 3 %. missing: Share of nights without a number."""
    rng = np.random.default_rng(seed)
    delays, misplaced = [], []
    for _ in range(series):
        logs = spread * draw(rng, BEFORE + 14)
        logs[BEFORE:] += math.log1p(size)
        gone = rng.random(len(logs)) < missing
        gone[[0, BEFORE]] = False
        one = simulated(np.where(gone, math.nan, logs))
        begin = int((~gone[:BEFORE]).sum())
        told = next((pair for pair in replay(one, begin, policy) if pair[1].state is State.REGRESSED), None)
        delays.append(math.inf if told is None else told[0] - BEFORE + 1)
        if told is not None and told[1].shape == Shape.STEP:
            misplaced.append((told[1].since - _FIRST).days - BEFORE)
    return Found(np.array(delays, dtype=float), np.array(misplaced, dtype=float))


def alarms_of(make: Callable[[np.random.Generator], Floats], series: int, seed: int) -> list[list[tuple[int, Alert]]]:
    """Return the alerts of each of some series that are made with a generator."""
    rng = np.random.default_rng(seed)
    return [[*replay(simulated(make(rng)))] for _ in range(series)]
