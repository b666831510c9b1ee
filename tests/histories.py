"""Histories made in memory: nights of a simulated number, with the steps, drifts, gaps and events a test wants."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from harness.analysis.stats import Floats
from harness.history.series import Event, Key, Point, Series
from harness.history.store.settings import Schedule

FIRST = datetime(2026, 3, 1, 2, 30, tzinfo=UTC)
KEY = Key("nightly", "chat", "", "ttft_ms", "p95", "llama", "vllm", "q4_k_m", "", "m1")
WEEKDAYS = Schedule.model_validate({"at": ["02:30"], "days": ["mon", "tue", "wed", "thu", "fri"]})


def night(number: float) -> datetime:
    """Begin of a night, by its number."""
    return FIRST + timedelta(days=number)


def series(values: Floats | Sequence[float], **given: Any) -> Series:
    """A series of one number a night; NaN for a missing night. Labels: the commit of each night.

    Any field of Series may be given, and of its key: `series(x, metric="tpot_ms", resets=(30,))`.
    """
    own = {name: given.pop(name) for name in list(given) if name in Key.__dataclass_fields__}
    points = tuple(
        Point(night(number), float(value), labels={"commit": f"c{number}"}, run=f"r{number}")
        for number, value in enumerate(values)
        if math.isfinite(value)
    )
    return Series(**{"key": replace(KEY, **own), "better": "lower", "points": points, **given})


def upto(one: Series, last: int) -> Series:
    """The series as it was after a night: later points, events and resets are not known yet."""
    until = night(last) + timedelta(hours=1)
    points = tuple(point for point in one.points if point.at <= until)
    events = tuple(event for event in one.events if event.at <= until)
    return replace(one, points=points, events=events, resets=tuple(r for r in one.resets if r < len(points)))


@dataclass
class Noise:
    """Normal noise around a level, night by night: relative."""

    nights: int
    level: float = 100.0
    spread: float = 0.01
    seed: int = 0
    logs: Floats = field(init=False)

    def __post_init__(self) -> None:
        self.logs = np.random.default_rng(self.seed).normal(0, self.spread, self.nights)

    def step(self, at: int, size: float) -> Noise:
        """Another level from a night on: size 0.05 is 5 % more."""
        self.logs[at:] += math.log1p(size)
        return self

    def creep(self, begin: int, end: int, weekly: float) -> Noise:
        """More by so much a week, until a night from which on it stays."""
        nights = np.clip(np.arange(self.nights) - begin, 0, end - begin)
        self.logs += nights / 7 * math.log1p(weekly)
        return self

    def noisy(self, begin: int, end: int, times: float) -> Noise:
        """A wider spread for some nights; before any step."""
        self.logs[begin:end] *= times
        return self

    def missing(self, begin: int, end: int) -> Noise:
        """Nights without a number."""
        self.logs[begin:end] = math.nan
        return self

    @property
    def values(self) -> Floats:
        """The numbers."""
        numbers: Floats = self.level * np.exp(self.logs)
        return numbers


def event(at: int, kind: str, text: str = "") -> Event:
    """An event just before the run of a night."""
    return Event(night(at), kind, text)
