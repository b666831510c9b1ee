"""Result of a search, derived from the stored records of its trial."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness.analysis.columns import NS_PER_MS, NS_PER_S, Columns
from harness.analysis.latencies import of_each
from harness.analysis.lateness import lag_ns
from harness.analysis.reading import Reading
from harness.analysis.stats import Estimate as Interval
from harness.analysis.stats import quantile, share_estimate
from harness.analysis.summary import slo_of
from harness.records import Status
from harness.saturation.facts import ServerFacts, facts_of
from harness.saturation.observed import Observed, State, Visit, observe
from harness.saturation.requests import (
    SLO,
    Bounds,
    Outcomes,
    Requests,
    Requirement,
    bounds_of,
    requirements_of,
    tightest_ttft_s,
)
from harness.saturation.search import Found, find
from harness.store.manifest import SearchEntry, TrialEntry

STABILITY = "stability"
NAMES = {"ttft_ms": "ttft", "tpot_ms": "tpot", "e2e_ms": "e2e", "error_rate": "errors"}


@dataclass(frozen=True, slots=True)
class Saturation:
    """Largest rate that keeps the requirements, with the probability of 90 % on each side.

    Attributes:
        lower: The largest rate is higher with a probability of 90 %: the rate to plan with, in requests/s. 0: no rate
            is known to keep the requirements.
        value: Median; NaN if it is not known.
        upper: The largest rate is lower with a probability of 90 %; infinite if it is not known.
        binding: What decides: `ttft`, `tpot`, `e2e`, `stall`, `errors` or `stability`.
        requirement: The requirement that decides: `slo`, or a limit as written.
        share: Share of the requests that must keep it.
        confirmed: Whether the measurement at the lower rate kept the requirement: `yes` and `no` beyond chance,
            `likely` and `unlikely` by its share alone, None without a measurement.
        ended: `width`, `budget`, `largest_rate`, `lowest_rate`, `errors`, or None if it was interrupted.
        half_width: Half of the central 90 % interval as a share of the median.
        facts: Throughput and service time of the server.
        late_ms: p99 of the lateness of the load generator in the search.
        rates: The frontier: each rate tried, with its attainment.
    """

    lower: float
    value: float
    upper: float
    binding: str
    requirement: str
    share: float
    confirmed: str | None
    ended: str | None
    half_width: float
    facts: ServerFacts
    late_ms: float
    rates: tuple[Tried, ...]


@dataclass(frozen=True, slots=True)
class Tried:
    """Rate tried. attainment: share of its requests that met the deciding requirement, with its 95 % interval."""

    rate: float
    state: str
    seconds: float
    requests: int
    effective: float
    attainment: Interval
    overloaded: bool


def saturation_of(reading: Reading) -> Saturation | None:
    """Return the result of a search; None for other loads, and for a search without a rate or a requirement."""
    search = reading.trial.search
    if search is None:
        return None
    requirements = requirements_of(search.attainment or 0.95, reading.trial.limits)
    if not requirements:  # a limit `attainment >= 100%`, which scenarios may not have any more
        return None
    requests = stored_requests(reading.columns, reading.trial, requirements)
    visits = [_visit(number, search) for number in range(len(search.visits))]
    observed = [observe(requests, one) for one in visits if one.rate > 0]
    if not any(one.requests for one in observed):
        return None
    facts = facts_of(requests, visits)
    late_ms = _late_ms(reading.columns, visits)
    if not math.isfinite(facts.most_rps):
        return _without_overload(observed, search, facts, late_ms, requirements[0])
    ttft_s = tightest_ttft_s(reading.trial.slo, list(reading.trial.class_slo.values()))
    found = find(observed, requirements, float(search.gaps_variation), facts, ttft_s)
    deciding, decisive = next(one for one in requirements if one.name == found.binding), found.decisive
    none = decisive.at_floor
    return Saturation(
        0.0 if none else found.lower,
        math.nan if none else decisive.value,
        math.inf if none else decisive.upper,
        _binding(observed, deciding),
        deciding.name,
        deciding.share,
        _confirmed(observed, deciding),
        search.ended,
        math.nan if none else decisive.half_width,
        facts,
        late_ms,
        frontier(observed, deciding, found, float(search.gaps_variation)),
    )


def stored_requests(columns: Columns, trial: TrialEntry, requirements: Sequence[Requirement]) -> Requests:
    """Return the requests of a trial that were sent. Those that its end cut off are in flight for ever."""
    columns = columns.where(columns.sent)
    latencies = of_each(columns)
    cut_off = columns.has_status([Status.UNFINISHED])
    values = {**latencies, "stall_ms": columns.each.longest_ns / NS_PER_MS}
    due_s = columns.times["due"] / NS_PER_S
    ended_s = np.where(cut_off, math.inf, columns.ended / NS_PER_S)
    end_s = float(np.nanmax(columns.ended)) / NS_PER_S if len(columns) else 0.0
    return Outcomes(due_s, ended_s, columns.ok, values).meeting(_bounds(columns, trial), requirements, end_s)


def _bounds(columns: Columns, trial: TrialEntry) -> Bounds:
    """Return the bounds of each request by its class, or of all requests if no class has its own."""
    if not trial.class_slo:
        return trial.slo
    slos = [slo_of(trial, str(name)) for name in columns.class_name.categories]
    return bounds_of(trial.slo, slos, columns.class_name.codes.astype(np.int64))


def _visit(number: int, search: SearchEntry) -> Visit:
    one = search.visits[number]
    start_s, end_s, counted_s = (ns / NS_PER_S for ns in (one.start_ns, one.end_ns, one.counted_from_ns))
    return Visit(number, State(one.state), float(one.rate), start_s, end_s, counted_s, one.overloaded)


def _without_overload(
    observed: Sequence[Observed], search: SearchEntry, facts: ServerFacts, late_ms: float, slo: Requirement
) -> Saturation:
    """Return the result of a ramp that the server kept up with: only a lower end is known."""
    held = [one.visit.rate for one in observed if not _misses(one, slo)]
    rates = frontier(observed, slo, None, float(search.gaps_variation))
    confirmed = _confirmed(observed, slo)
    unknown = (math.inf, "", slo.name, slo.share, confirmed, search.ended, math.nan, facts, late_ms, rates)
    return Saturation(max(held, default=0.0), math.nan, *unknown)


def _misses(one: Observed, slo: Requirement) -> bool:
    return bool(one.requests) and one.missed[slo.name] > (1 - slo.share) * one.requests


def frontier(
    observed: Sequence[Observed], deciding: Requirement, found: Found | None, arrivals: float
) -> tuple[Tried, ...]:
    """Return each rate tried, in ascending order, with its attainment. `found` None: the queue is not known."""
    rows = []
    for rate in sorted({one.visit.rate for one in observed}):
        own = [one for one in observed if one.visit.rate == rate]
        requests, missed = sum(one.requests for one in own), sum(one.missed.get(deciding.name, 0) for one in own)
        seconds = sum(one.seconds for one in own)
        effective = sum(one.effective.get(deciding.name, 0.0) for one in own)
        memory_s = 0.0 if found is None else 2 * found.facts.relaxation_s(rate, arrivals)
        effective = min(effective, seconds / memory_s) if memory_s > 0 else effective
        kept = np.arange(requests) >= missed
        interval = share_estimate([kept], [max(effective, 1.0)])
        states = dict.fromkeys(str(one.visit.state) for one in own)
        over = any(one.visit.overloaded for one in own)
        rows.append(Tried(rate, ", ".join(states), seconds, requests, effective, interval, over))
    return tuple(rows)


def _binding(observed: Sequence[Observed], deciding: Requirement) -> str:
    """Return the part that decides: most missed where the server kept up; stability if it never missed there."""
    if deciding.name != SLO:
        return NAMES[deciding.metric]
    totals: dict[str, int] = {}
    for one in observed:
        if not one.visit.overloaded and one.visit.state is not State.RAMP:
            for part, count in one.parts.items():
                totals[part] = totals.get(part, 0) + count
    return max(totals, key=lambda part: totals[part]) if any(totals.values()) else STABILITY


def _confirmed(observed: Sequence[Observed], deciding: Requirement) -> str | None:
    """Return whether the measurement kept the requirement; its interval has the effective number of requests."""
    last = observed[-1]
    if last.visit.state is not State.CONFIRM or not last.requests:
        return None
    kept = np.arange(last.requests) >= last.missed[deciding.name]
    share = share_estimate([kept], [max(1.0, last.effective[deciding.name])])
    if share.low >= deciding.share:
        return "yes"
    if share.high < deciding.share:
        return "no"
    return "likely" if share.value >= deciding.share else "unlikely"


def _late_ms(columns: Columns, visits: Sequence[Visit]) -> float:
    """Return the p99 of the load generator's lateness in the visits that decide; NaN without any."""
    due_s = columns.times["due"] / NS_PER_S
    inside = np.zeros(len(columns), dtype=np.bool_)
    for one in visits:
        if one.state in (State.SEARCH, State.CONFIRM):
            inside |= (due_s >= one.counted_from_s) & (due_s < one.end_s)
    lag_ms = lag_ns(columns)[inside & columns.sent] / NS_PER_MS
    return quantile(lag_ms, 0.99) if len(lag_ms) else math.nan


def as_fact(found: Saturation) -> dict[str, Any]:
    """Return a result as JSON-able data; unknown and infinite numbers are None."""
    return {
        "lower_rps": _number(found.lower),
        "value_rps": _number(found.value),
        "upper_rps": _number(found.upper),
        "binding": found.binding or None,
        "requirement": found.requirement,
        "share": found.share,
        "confirmed": found.confirmed,
        "ended": found.ended,
        "half_width": _number(found.half_width),
        "throughput_rps": _number(found.facts.most_rps),
        "service_s": _number(found.facts.service_s),
        "late_ms": _number(found.late_ms),
        "rates": [
            {
                "rate": one.rate,
                "state": one.state,
                "seconds": one.seconds,
                "requests": one.requests,
                "effective": _number(one.effective),
                "attainment": _number(one.attainment.value),
                "low": _number(one.attainment.low),
                "high": _number(one.attainment.high),
                "overloaded": one.overloaded,
            }
            for one in found.rates
        ],
    }


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
