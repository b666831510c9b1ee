"""Requests of a search: when they were due and ended, and which requirements they missed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from harness.analysis.stats import Flags, Floats, Ints
from harness.scenario.limits import parse_limit

SLO = "slo"
ERRORS = "errors"
PARTS = {"ttft_ms": "ttft", "tpot_ms": "tpot", "e2e_ms": "e2e", "stall_ms": "stall"}
OF_REQUESTS = ("ttft_ms", "tpot_ms", "e2e_ms")  # metrics whose percentiles may be limited


@dataclass(frozen=True, slots=True)
class Requirement:
    """Share of the requests that must meet a bound: the SLO of each request, or a limit.

    Attributes:
        name: `slo`, or the limit as written in the scenario.
        share: Least share of good requests, such as 0.95.
        metric: Metric of a limit; `slo` for the SLO.
        bound: Bound of a limit on a latency, in ms.
    """

    name: str
    share: float
    metric: str = SLO
    bound: float = math.nan


def requirements_of(attainment: float, limits: Sequence[str]) -> tuple[Requirement, ...]:
    """Return the requirements of a search: the SLO, and the limits that a share of requests decides.

    These are upper bounds on percentiles of `ttft_ms`, `tpot_ms` and `e2e_ms` of all requests, and on `error_rate`. A
    limit on `attainment` replaces the share of the load.
    """
    found = []
    for text in limits:
        limit = parse_limit(text)
        if limit.class_name or limit.base:
            continue
        percentile = (limit.statistic or "").removeprefix("p")
        if limit.metric == "attainment" and limit.op[0] == ">":
            attainment = limit.value
        elif limit.metric == "error_rate" and limit.op[0] == "<":
            found.append(Requirement(text, 1 - limit.value, limit.metric))
        elif limit.metric in OF_REQUESTS and limit.op[0] == "<" and limit.statistic and percentile[:1].isdigit():
            found.append(Requirement(text, float(percentile) / 100, limit.metric, limit.value))
    every = (Requirement(SLO, attainment), *found)
    return tuple(one for one in every if 0 < one.share < 1)


Bounds = Mapping[str, float | Floats | None]
"""Bound of each latency in ms, None without one: of every request, or one for each, NaN for those without."""


def bounds_of(slo: Mapping[str, float | None], classes: Sequence[Mapping[str, float | None]], of_row: Ints) -> Bounds:
    """Return the bounds of requests of several classes; those of `slo` without classes.

    Args:
        classes: SLO of each class.
        of_row: Place of the class of each request.
    """
    if not classes:
        return slo
    found: dict[str, float | Floats | None] = {}
    for metric in PARTS:
        each = np.array([math.nan if one.get(metric) is None else one[metric] for one in classes], dtype=np.float64)
        found[metric] = None if np.isnan(each).all() else each[of_row]
    return found


def tightest_ttft_s(slo: Mapping[str, float | None], classes: Sequence[Mapping[str, float | None]]) -> float | None:
    """Return the least bound on the time to the first token of any class, in seconds; None without one."""
    known = [bound / 1e3 for one in classes or [slo] if (bound := one.get("ttft_ms")) is not None]
    return min(known, default=None)


@dataclass(frozen=True, slots=True)
class Outcomes:
    """Outcomes of requests in due order, as a client or the stored records know them.

    Attributes:
        due_s: Due times, ascending, in seconds from T0.
        ended_s: Ends; infinite for requests in flight.
        ok: Whether they succeeded.
        values: `ttft_ms`, `tpot_ms`, `e2e_ms` and `stall_ms` of each; NaN where there is none.
    """

    due_s: Floats
    ended_s: Floats
    ok: Flags
    values: Mapping[str, Floats]

    def meeting(self, slo: Bounds, requirements: Sequence[Requirement], now_s: float) -> Requests:
        """Return the requests with what each of them missed; `now_s` is the present moment."""
        bounds = {metric: bound for metric in PARTS if (bound := slo.get(metric)) is not None}
        parts = {PARTS[metric]: self._beyond(metric, bound, now_s) for metric, bound in bounds.items()}
        parts[ERRORS] = np.where(self._ended, ~self.ok, np.nan)
        missed = {}
        for one in requirements:
            if one.metric == SLO:
                missed[one.name] = _any_of(list(parts.values()))
            elif one.metric == "error_rate":
                missed[one.name] = parts[ERRORS]
            else:
                missed[one.name] = _any_of([self._beyond(one.metric, one.bound, now_s), parts[ERRORS]])
        e2e_s = np.where(self.ok & self._ended, self.ended_s - self.due_s, np.nan)
        ttft_s, own = self.values["ttft_ms"] / 1e3, bounds.get("ttft_ms")
        own_s = own / 1e3 if isinstance(own, np.ndarray) else None
        return Requests(self.due_s, self.ended_s, e2e_s, ttft_s, missed, parts, own_s)

    @property
    def _ended(self) -> Flags:
        return np.isfinite(self.ended_s)

    def _beyond(self, metric: str, bound: float | Floats, now_s: float) -> Floats:
        """Return 1 for values beyond a bound, NaN while in flight; a request without a second token has no tpot."""
        values, unseen = self.values[metric], metric in ("tpot_ms", "stall_ms")
        with np.errstate(invalid="ignore"):
            beyond = (values > bound) | (np.isnan(values) & ~np.isnan(bound) & (not unseen))
        in_flight = np.where(now_s - self.due_s > bound / 1e3, 1.0, np.nan) if metric == "e2e_ms" else np.nan
        found: Floats = np.where(self._ended, beyond & self.ok, in_flight)
        return found


def _any_of(flags: Sequence[Floats]) -> Floats:
    """Return 1 where one of the flags is 1, else NaN where one is not decided, else 0."""
    together = np.stack(flags)
    missed = (together == 1).any(axis=0)
    return np.where(missed, 1.0, np.where(np.isnan(together).any(axis=0), np.nan, 0.0))


@dataclass(frozen=True, slots=True)
class Requests:
    """Requests known so far, in due order; times in seconds on the clock of the search.

    Attributes:
        due_s: Due times, ascending.
        ended_s: Ends, infinite for requests in flight.
        e2e_s: Time from due to the end of successful requests; NaN for others.
        ttft_s: Time from due to the first token; NaN where none is known.
        missed: Flags by name of the requirement: 1 missed, 0 met, NaN not decided yet.
        parts: The same by the parts of the SLO (`ttft`, `tpot`, `e2e`, `stall`, `errors`).
        ttft_bounds_s: The SLO's bound on the time to the first token of each, NaN without one; None: all have the same.
    """

    due_s: Floats
    ended_s: Floats
    e2e_s: Floats
    ttft_s: Floats
    missed: Mapping[str, Floats]
    parts: Mapping[str, Floats]
    ttft_bounds_s: Floats | None = None

    def between(self, start_s: float, end_s: float) -> slice:
        """Return the places of the requests due in [start, end)."""
        first, last = np.searchsorted(self.due_s, [start_s, end_s])
        return slice(int(first), int(last))

    def in_flight(self, at_s: Floats) -> Floats:
        """Return the number of requests in flight at these moments."""
        found = np.searchsorted(self.due_s, at_s, "right") - np.searchsorted(np.sort(self.ended_s), at_s, "right")
        return found.astype(np.float64)

    def completed(self, start_s: float, end_s: float) -> int:
        """Return the number of successful requests that ended in [start, end)."""
        ended = self.ended_s[np.isfinite(self.e2e_s)]
        return int(((ended >= start_s) & (ended < end_s)).sum())

    def failed(self, start_s: float, end_s: float) -> int:
        """Return the number of requests that ended in [start, end) without success."""
        ended = self.ended_s[~np.isfinite(self.e2e_s)]
        return int(((ended >= start_s) & (ended < end_s)).sum())
