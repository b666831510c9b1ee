"""Demand: requests per second over a week, in buckets of five minutes, and the peak that is planned for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, tzinfo
from itertools import pairwise

import numpy as np

from harness.analysis.stats import Flags, Floats, Ints, quantile
from harness.errors import UsageError
from harness.prices.hours import DAYS, WEEK_H, WorkingHours

BUCKET_S = 300
PER_HOUR, PER_DAY = 3600 // BUCKET_S, 24 * 3600 // BUCKET_S
PER_WEEK = 7 * PER_DAY
PEAK = 0.99
"""Quantile of the buckets that is planned for: 1 % of them, 100 minutes a week, ask for more."""


@dataclass(frozen=True, slots=True)
class Demand:
    """Requests per second that arrive.

    Attributes:
        week: In each bucket of a week from Monday 00:00 local time; of several weeks the 99th percentile.
        buckets: In each measured bucket, in order of time.
        places: Bucket of the week that each of them is in.
        source: Rate or file, as written.
        notes: Sentences on what the source does not say.
    """

    week: Floats
    buckets: Floats
    places: Ints
    source: str
    notes: tuple[str, ...] = ()

    @property
    def peak_rps(self) -> float:
        """The 99th percentile of the buckets."""
        return quantile(self.buckets, PEAK)

    @property
    def mean_rps(self) -> float:
        return float(self.buckets.mean())

    @property
    def planned(self) -> Floats:
        """The week, no bucket above the peak that is planned for."""
        return np.minimum(self.week, self.peak_rps)

    @property
    def varies(self) -> bool:
        """Whether it is more than one rate."""
        return bool(self.week.max() > self.week.min())

    def within(self, hours: WorkingHours) -> Demand:
        """Return the demand during working hours; nothing arrives at other times. Raises UsageError if none does."""
        covered = self._covered(hours)
        inside = covered[self.places]
        if not (inside.any() and self.buckets[inside].max() > 0):
            raise UsageError(f"--hours {hours.text}: no requests arrive then; write hours in which some do")
        week, buckets = np.where(covered, self.week, 0.0), self.buckets[inside]
        return replace(self, week=week, buckets=buckets, places=self.places[inside])

    def outside(self, hours: WorkingHours) -> float:
        """Return the share of the requests that arrive outside working hours."""
        total = float(self.buckets.sum())
        return float(self.buckets[~self._covered(hours)[self.places]].sum()) / total if total else 0.0

    @staticmethod
    def _covered(hours: WorkingHours) -> Flags:
        return np.array([hours.covers(number * BUCKET_S // 60) for number in range(PER_WEEK)])


def of_rate(rate_rps: float) -> Demand:
    """Return the demand of a constant rate."""
    week = np.full(PER_WEEK, float(rate_rps))
    return Demand(week, week, np.arange(PER_WEEK), f"{rate_rps:g} requests/s")


def of_hours(hourly: Sequence[float], source: str) -> Demand:
    """Return the demand of the 168 hours of a week, or the 24 of each day."""
    day = np.repeat(np.array(hourly, dtype=np.float64), PER_HOUR)
    week = day if len(hourly) == WEEK_H else np.tile(day, 7)
    return Demand(
        week,
        week,
        np.arange(PER_WEEK),
        source,
        ("Each hour has one rate: peaks within an hour are not in the demand.",),
    )


def hours_of_days(days: Mapping[str, float | Sequence[float]]) -> list[float]:
    """Return the rates of 168 hours from those of the days by name; one rate stands for all hours of its day."""
    each = [days[name] for name in DAYS]
    return [float(rate) for day in each for rate in ([day] * 24 if isinstance(day, int | float) else day)]


def of_trace(
    starts_s: Floats, rates_rps: Floats, step_s: float, zone: tzinfo, source: str, lengths_s: Floats | None = None
) -> Demand:
    """Return the demand of measured rates.

    Args:
        starts_s: Start of each measured stretch, seconds since 1970, ascending.
        rates_rps: Requests per second in each.
        step_s: Usual length of a stretch.
        zone: Time zone of the week.
        lengths_s: Length of each stretch, by which it counts in its bucket; None: they count alike.
    """
    weights = np.ones(len(starts_s)) if lengths_s is None else lengths_s
    begins, buckets = _in_buckets(starts_s, rates_rps, step_s, weights)
    places = np.array([_place(begin, zone) for begin in begins])
    week, notes = _folded(places, buckets)
    if step_s > BUCKET_S:
        notes.insert(0, f"Its rows are {step_s:g} s apart: peaks within are not in the demand.")
    missing = round((float(begins[-1]) - float(begins[0])) / BUCKET_S) + 1 - len(begins)
    if missing > 0:
        notes.append(f"{missing} buckets of 5 minutes are missing from the file; they count as unknown.")
    return Demand(week, buckets, places, source, tuple(notes))


def _in_buckets(starts_s: Floats, rates_rps: Floats, step_s: float, weights: Floats) -> tuple[Floats, Floats]:
    """Return start and mean rate of each bucket that has a row."""
    repeats = max(1, round(step_s / BUCKET_S))
    begins = (starts_s[:, None] + np.arange(repeats) * BUCKET_S).ravel()
    numbers = np.floor(begins / BUCKET_S).astype(np.int64)
    known, place = np.unique(numbers, return_inverse=True)
    sums = np.bincount(place, np.repeat(rates_rps * weights, repeats), len(known))
    starts: Floats = known.astype(np.float64) * BUCKET_S
    return starts, sums / np.bincount(place, np.repeat(weights, repeats), len(known))


def _place(begin_s: float, zone: tzinfo) -> int:
    local = datetime.fromtimestamp(begin_s, zone)
    return local.weekday() * PER_DAY + (local.hour * 3600 + local.minute * 60) // BUCKET_S


def _folded(places: Ints, buckets: Floats) -> tuple[Floats, list[str]]:
    """Return the 99th percentile of each bucket of a week, with a note on those that were taken from others.

    A bucket without a row is taken from the same time of other days, else it is the peak of all.
    """
    week = np.full(PER_WEEK, np.nan)
    order = np.argsort(places, kind="stable")
    ends = [*np.flatnonzero(np.diff(places[order])) + 1, len(places)]
    for begin, end in pairwise([0, *ends]):
        own = order[begin:end]
        week[places[own[0]]] = quantile(buckets[own], PEAK)
    missing = np.isnan(week)
    if not missing.any():
        return week, []
    by_time = week.reshape(7, PER_DAY)
    usual = np.array([quantile(column[~np.isnan(column)], PEAK) for column in by_time.T])
    peak = quantile(buckets, PEAK)
    filled = np.where(np.isnan(usual), peak, usual)
    week = np.where(missing, np.tile(filled, 7), week)
    known = f"The file has {int((~missing).sum()):,} of the {PER_WEEK:,} buckets of a week"
    return week, [f"{known}: other days stand for the rest, else the peak."]
