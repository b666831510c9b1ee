"""One rate of a search, observed: good requests, their effective number, and whether the backlog grows."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np

from harness.analysis.stats import Floats, memory_of
from harness.saturation.requests import Requests

LEVELS = (0.5, 0.75, 0.9)  # of TTFT, whose autocorrelation limits the effective number of requests
LOOKS_S = 0.25  # at most, between two looks at the requests in flight
FEWEST_LOOKS = 16
FEWEST_TOKENS = 8  # first tokens in the last third of a visit
SURE = 2.326348  # one-sided 1 %
SLOW = 5.0  # times the SLO's TTFT in the last third of a visit
FEWEST_REFUSED, REFUSED = 20, 0.2  # failed requests of a visit, and their least share of those that ended


class State(StrEnum):
    """Purpose of a part of the search."""

    RAMP = "ramp"
    SEARCH = "search"
    PAUSE = "pause"
    CONFIRM = "confirm"


@dataclass(frozen=True, slots=True)
class Visit:
    """Stretch of the search at one rate. Requests due before `counted_from_s` met the rate before it.

    Attributes:
        rate: Requests per second; 0 in a pause.
        overloaded: True if it was ended because the backlog grew, or requests were refused.
    """

    number: int
    state: State
    rate: float
    start_s: float
    end_s: float
    counted_from_s: float
    overloaded: bool = False


@dataclass(frozen=True, slots=True)
class Observed:
    """Requests of one visit whose outcome is known.

    Attributes:
        seconds: Observed time, without the settling time at the start.
        requests: Number of requests in it.
        missed: Number of them that missed, by requirement.
        effective: Effective number of them by their own autocorrelation, by requirement.
        parts: Number that missed each part of the SLO.
    """

    visit: Visit
    seconds: float
    requests: int
    missed: Mapping[str, int] = field(default_factory=dict)
    effective: Mapping[str, float] = field(default_factory=dict)
    parts: Mapping[str, int] = field(default_factory=dict)


def observe(requests: Requests, visit: Visit) -> Observed:
    """Return what is known of a visit: its requests before the first that is still undecided.

    Requests after that one are left out even if decided: the decided ones among them are the fast ones. A visit that
    was ended by a growing backlog counts from its start.
    """
    start_s = visit.start_s if visit.overloaded else visit.counted_from_s
    rows = requests.between(start_s, max(visit.end_s, start_s))
    undecided = np.zeros(rows.stop - rows.start, dtype=np.bool_)
    for flags in requests.missed.values():
        undecided |= np.isnan(flags[rows])
    known = int(undecided.argmax()) if undecided.any() else len(undecided)
    end_s = float(requests.due_s[rows.start + known]) if undecided.any() else visit.end_s
    rows = slice(rows.start, rows.start + known)
    levels = _least_size(requests.ttft_s[rows])
    missed = {name: flags[rows] for name, flags in requests.missed.items()}
    return Observed(
        visit,
        max(0.0, end_s - start_s),
        known,
        {name: int(flags.sum()) for name, flags in missed.items()},
        {name: min(levels, memory_of(flags).size) if known else 0.0 for name, flags in missed.items()},
        {name: int(np.nansum(flags[rows])) for name, flags in requests.parts.items()},
    )


def _least_size(ttft_s: Floats) -> float:
    """Return the least effective number of requests over the levels of TTFT; unknown ones count as slow."""
    if len(ttft_s) < 4:
        return float(len(ttft_s))
    values = np.where(np.isnan(ttft_s), math.inf, ttft_s)
    ordered = np.sort(values)
    at = [ordered[min(len(ordered) - 1, math.ceil(len(ordered) * level) - 1)] for level in LEVELS]
    return min(memory_of((values <= one).astype(np.float64)).size for one in at)


def backlog_grows(requests: Requests, visit: Visit, service_s: float, ttft_s: float | None) -> bool:
    """Return True if the server does not keep up with the rate of a visit.

    Either the requests in flight rise beyond chance, are more than twice those that Little's law expects without
    waiting, and the last of them will wait beyond the SLO's TTFT (without one, for the time of a request); or the last
    third of the known first tokens came after five times the SLO of their class.
    """
    expected, lasted_s = visit.rate * service_s, visit.end_s - visit.start_s
    looks = max(FEWEST_LOOKS, int(lasted_s / LOOKS_S))
    at_s = visit.start_s + lasted_s * np.arange(1, looks + 1, dtype=np.float64) / (looks + 1)
    in_flight = requests.in_flight(at_s)
    waits = in_flight[-1] - expected > visit.rate * (service_s if ttft_s is None else ttft_s)
    most = max(2 * expected, expected + 4 * math.sqrt(expected) + 2)
    if waits and in_flight[-1] > most and rises(in_flight):
        return True
    if ttft_s is None:
        return False
    rows = requests.between(visit.start_s + lasted_s * 2 / 3, visit.end_s)
    bounds_s = ttft_s if requests.ttft_bounds_s is None else requests.ttft_bounds_s[rows]
    last = requests.ttft_s[rows] / bounds_s
    last = last[np.isfinite(last)]
    return bool(len(last) >= FEWEST_TOKENS and np.median(last) > SLOW)


def refuses(requests: Requests, visit: Visit, allowed: float) -> bool:
    """Return True if many requests of a visit failed: a server that turns them away has no backlog.

    Args:
        allowed: Share of the requests that may miss the strictest requirement.
    """
    failed, completed = (count(visit.start_s, visit.end_s) for count in (requests.failed, requests.completed))
    return failed >= FEWEST_REFUSED and failed >= max(REFUSED, allowed) * (failed + completed)


def rises(series: Floats) -> bool:
    """Return True if the slope of a series is positive beyond chance: one-sided 1 %, errors by Newey and West (1987).

    The errors of neighbouring looks are alike, so lags up to an eighth of the series are counted.
    """
    n = len(series)
    time = np.arange(n) - (n - 1) / 2
    slope = float(time @ series / (time @ time))
    scores = time * (series - series.mean() - slope * time)
    lags = max(1, n // 8)
    variance = float(scores @ scores)
    for lag in range(1, lags + 1):
        variance += 2 * (1 - lag / (lags + 1)) * float(scores[lag:] @ scores[:-lag])
    return slope > 0 and slope * float(time @ time) > SURE * math.sqrt(max(variance, 0.0))
