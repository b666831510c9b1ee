"""Search for the largest rate that keeps the requirements: which rate to send next, and when enough is known.

Four parts follow each other. The ramp doubles the rate until the backlog grows, or requests are refused: that shows the
largest throughput. The search tries rates near the threshold, each long enough to outlast the queue's memory. It pauses
after an overload until the backlog is gone. The confirmation sends the lower bound again, with other arrivals. Every
part is evidence for the same threshold model (`posterior`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from harness.saturation.facts import UNQUEUED, ServerFacts, facts_of
from harness.saturation.observed import Observed, State, Visit, backlog_grows, observe, refuses
from harness.saturation.posterior import Estimate, Tried, estimate
from harness.saturation.requests import SLO, Requests, Requirement

FEWEST = 20  # requests that end at the first rate
FACTOR = 2.0  # between the rates of the ramp
STEP = 0.015  # between neighbouring rates of the search
FEWEST_MISSED = 2.0  # effective number of missed requests in the search before its end
CHUNKS = 2  # least chunks of each visit; one is the longest settling time
SETTLE_TIMES = 3.0  # relaxation times of settling after a change of the rate
SERVICES = 3.0  # service times that a visit lasts at least
OVERLOADS = 2.0  # times as long as another step of the ramp does that of the overload last, to see the throughput
PATIENCE = 2.0  # times the SLO's TTFT that a step lasts at least: an overload shows when requests wait beyond it
ABOVE, BELOW = 1.03, 0.1  # range of the threshold, in shares of the largest throughput
LEAST = STEP / 2  # least threshold where nothing bounds it from below, as a share of the largest throughput
MOMENT = 1e-3  # share of a chunk that is taken as nothing
CALM, SLOWER = 0.25, 8.0  # first rate after an overload at the first one: share of the throughput, or divisor
CLEARED = 0.5  # backlog that ends a pause, as a share of the requests in flight at the largest throughput


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of a search.

    Attributes:
        requirements: All must be kept.
        ttft_s: The SLO's bound on the time to the first token; None without one.
        arrivals: Squared coefficient of variation of the gaps between arrivals.
        first_rate: First rate of the ramp.
        largest_rate: No rate above it is tried.
        width: Half width of the 90 % interval at which the search ends, as a share of the rate.
        budget_s: Time for everything, the confirmation included.
        confirm_s: Length of the confirmation.
        chunk_s: Time after which the estimate is made again.
        slice_s: Time after which the backlog is looked at again.
        ramp_s: Least length of a step of the ramp.
        settle_s: Least time after a change of the rate in which requests do not count; at most a chunk.
    """

    requirements: tuple[Requirement, ...]
    ttft_s: float | None = None
    arrivals: float = 1.0
    first_rate: float = 1.0
    largest_rate: float = math.inf
    width: float = 0.066
    budget_s: float = 900.0
    confirm_s: float = 60.0
    chunk_s: float = 20.0
    slice_s: float = 2.5
    ramp_s: float = 10.0
    settle_s: float = 8.0


@dataclass(frozen=True, slots=True)
class Found:
    """Estimates of each requirement's threshold; the least one decides."""

    by_requirement: dict[str, Estimate]
    facts: ServerFacts

    @property
    def binding(self) -> str:
        """Name of the requirement with the least threshold."""
        return min(self.by_requirement, key=lambda name: self.by_requirement[name].value)

    @property
    def decisive(self) -> Estimate:
        """Estimate of the binding requirement."""
        return self.by_requirement[self.binding]

    @property
    def lower(self) -> float:
        """Least lower bound of all requirements."""
        return min(one.lower for one in self.by_requirement.values())


def find(
    observed: Sequence[Observed],
    requirements: Sequence[Requirement],
    arrivals: float,
    facts: ServerFacts,
    ttft_s: float | None = None,
) -> Found:
    """Return what all visits together say; `facts` must hold a finite throughput. `ttft_s` is the SLO's bound.

    Of a requirement that may be missed below the usual range, the threshold is looked for down to LEAST.
    """
    most = ABOVE * facts.most_rps
    found = {}
    for one in requirements:
        tried = tried_rates(observed, one.name, arrivals, facts)
        bound_s = ttft_s if one.metric == SLO else one.bound / 1e3 if one.metric == "ttft_ms" else None
        steepness = partial(facts.steepness, bound_s=bound_s, arrivals=arrivals)
        known = estimate(tried, one.share, BELOW * facts.most_rps, most, facts.error, steepness)
        if known.at_floor:
            known = estimate(tried, one.share, LEAST * facts.most_rps, most, facts.error, steepness)
        found[one.name] = known
    return Found(found, facts)


def tried_rates(observed: Sequence[Observed], name: str, arrivals: float, facts: ServerFacts) -> list[Tried]:
    """Return each rate tried with its effective number of requests.

    That is at most the number of independent states of the queue in the observed time, which is over twice its
    relaxation time. A visit that was ended by a growing backlog counts as at least one.
    """
    rates = sorted({one.visit.rate for one in observed if one.visit.rate > 0})
    found = []
    for rate in rates:
        visits = [one for one in observed if one.visit.rate == rate]
        size, share = _size(visits, name, 2 * facts.relaxation_s(rate, arrivals))
        if any(one.visit.overloaded and one.requests for one in visits):
            size = max(1.0, size)
        if size > 0:
            found.append(Tried(rate, size, size * share))
    return found


def _size(visits: Sequence[Observed], name: str, independent_s: float) -> tuple[float, float]:
    """Return the effective number of requests of visits at one rate, and the share that missed."""
    requests = sum(one.requests for one in visits)
    if not requests:
        return 0.0, 0.0
    size = sum(one.effective[name] for one in visits if one.requests)
    if independent_s > 0:
        size = min(size, sum(one.seconds for one in visits) / independent_s)
    return size, sum(one.missed[name] for one in visits if one.requests) / requests


@dataclass(frozen=True, slots=True)
class Step:
    """Load to send next: `rate` for `seconds` from the end of the last step on; 0 sends nothing."""

    visit: int
    state: State
    rate: float
    seconds: float


@dataclass
class Search:
    """State of a search. `next` takes what is known and returns the next step, None at the end.

    Attributes:
        visits: Stretches so far, the present one last.
        found: Estimate so far; None before the throughput is known.
        ended: Reason for the end: `width`, `budget`, `largest_rate`, `lowest_rate` (no rate down to the lowest met a
            requirement), or `errors` (no request succeeded).
    """

    settings: Settings
    visits: list[Visit] = field(default_factory=list)
    found: Found | None = None
    ended: str | None = None

    def next(self, requests: Requests, now_s: float) -> Step | None:
        """Return the next step; `now_s` is the end of the last one."""
        if not self.visits:
            return self._begin(State.RAMP, self.settings.first_rate, now_s, self.settings.slice_s)
        visit = self.visits[-1] = replace(self.visits[-1], end_s=now_s)
        after = {
            State.RAMP: self._after_ramp,
            State.SEARCH: self._after_search,
            State.PAUSE: self._after_pause,
            State.CONFIRM: self._after_confirmation,
        }
        return after[visit.state](requests, visit)

    def observed(self, requests: Requests) -> list[Observed]:
        """Return the visits with a rate, as observed so far."""
        return [observe(requests, one) for one in self.visits if one.rate > 0]

    def _begin(self, state: State, rate: float, now_s: float, seconds: float, settle_s: float = 0.0) -> Step:
        number = len(self.visits)
        self.visits.append(Visit(number, state, rate, now_s, now_s, now_s + settle_s))
        return Step(number, state, rate, seconds)

    def _go_on(self, seconds: float) -> Step:
        visit = self.visits[-1]
        return Step(visit.number, visit.state, visit.rate, seconds)

    def _after_ramp(self, requests: Requests, visit: Visit) -> Step | None:
        settings, lasted_s = self.settings, visit.end_s - visit.start_s
        facts = facts_of(requests, self.visits)
        service_s = facts.service_s
        known = math.isfinite(service_s)
        enough_s = max(settings.ramp_s, SERVICES * service_s if known else 0.0, PATIENCE * (settings.ttft_s or 0.0))
        if known and lasted_s >= enough_s and self._is_over(requests, visit, service_s):
            return self._pause(visit) if lasted_s >= OVERLOADS * enough_s else self._go_on(settings.slice_s)
        if self._out_of_time(visit):
            return self._confirm("budget", visit, facts)
        first = not any(one.state is State.RAMP and not one.overloaded for one in self.visits[: visit.number])
        few = (first or math.isfinite(facts.most_rps)) and requests.completed(visit.start_s, visit.end_s) < FEWEST
        if not known and requests.failed(visit.start_s, visit.end_s) >= FEWEST:
            self.ended = "errors"
            return None
        if lasted_s < enough_s or few or not known:
            return self._go_on(settings.slice_s)
        if math.isfinite(facts.most_rps):
            return self._choose(requests, visit.end_s)
        rate = FACTOR * visit.rate
        if rate > settings.largest_rate:
            return self._confirm("largest_rate", visit, facts)
        return self._begin(State.RAMP, rate, visit.end_s, settings.slice_s)

    def _is_over(self, requests: Requests, visit: Visit, service_s: float) -> bool:
        """Return True if a rate of the ramp is too high: the backlog grows, or requests are refused."""
        allowed = 1 - max(one.share for one in self.settings.requirements)
        return refuses(requests, visit, allowed) or backlog_grows(requests, visit, service_s, self.settings.ttft_s)

    def _pause(self, visit: Visit) -> Step:
        self.visits[-1] = replace(visit, overloaded=True)
        return self._begin(State.PAUSE, 0.0, visit.end_s, self.settings.slice_s)

    def _after_pause(self, requests: Requests, visit: Visit) -> Step | None:
        facts = facts_of(requests, self.visits)
        left = float(requests.in_flight(np.array([visit.end_s]))[0])
        # Below the requests that the server holds at its largest throughput, nothing waits.
        if left > max(1.0, CLEARED * facts.most_rps * facts.service_s) and not self._out_of_time(visit):
            return self._go_on(self.settings.slice_s)
        if not self._knows_service(facts):  # the first rate was too high
            rate = CALM * facts.most_rps if math.isfinite(facts.most_rps) else self.visits[-2].rate / SLOWER
            return self._begin(State.RAMP, rate, visit.end_s, self.settings.slice_s)
        return self._choose(requests, visit.end_s)

    def _knows_service(self, facts: ServerFacts) -> bool:
        """Return True if a part of the ramp was so slow that few of its requests waited."""
        ramp = (one for one in self.visits if one.state is State.RAMP and not one.overloaded)
        return math.isfinite(facts.most_rps) and any(one.rate <= UNQUEUED * facts.most_rps for one in ramp)

    def _after_search(self, requests: Requests, visit: Visit) -> Step | None:
        settings = self.settings
        facts = facts_of(requests, self.visits)
        if backlog_grows(requests, visit, facts.service_s, settings.ttft_s):
            return self._pause(visit)
        chunks = (visit.end_s - visit.counted_from_s) / settings.chunk_s
        if self._out_of_time(visit) or (chunks > CHUNKS - MOMENT and (chunks + MOMENT) % 1 < 2 * MOMENT):
            return self._choose(requests, visit.end_s)
        return self._go_on(self._until_chunk_s(visit))

    def _choose(self, requests: Requests, now_s: float) -> Step | None:
        """Estimate the threshold, and begin, go on with or end a visit."""
        settings, last = self.settings, self.visits[-1]
        facts = facts_of(requests, self.visits)
        self.found = find(self.observed(requests), settings.requirements, settings.arrivals, facts, settings.ttft_s)
        if why := self._why_to_end(requests, last, self.found):
            return self._confirm(why, last, facts)
        rate = on_grid(min(self.found.decisive.value, settings.largest_rate), facts.most_rps)
        if last.state is State.SEARCH and math.isclose(rate, last.rate):
            return self._go_on(self._until_chunk_s(last))
        settle_s = self._settle_s(rate, facts)
        return self._begin(State.SEARCH, rate, now_s, settings.slice_s, settle_s)

    def _why_to_end(self, requests: Requests, last: Visit, found: Found) -> str | None:
        """Return why the search ends after its last visit; None if it goes on."""
        decisive, is_over = found.decisive, self._out_of_time(last)
        if decisive.at_floor:
            at_lowest = last.state is State.SEARCH and math.isclose(last.rate, on_grid(0.0, found.facts.most_rps))
            return "lowest_rate" if at_lowest else "budget" if is_over else None
        if decisive.half_width <= self.settings.width and (is_over or self._has_seen_misses(requests)):
            return "width"
        return "budget" if is_over else None

    def _has_seen_misses(self, requests: Requests) -> bool:
        """Return True if the search saw both sides: without misses, the estimate rests on the model alone."""
        assert self.found is not None
        near = [one for one in self.observed(requests) if one.visit.state is State.SEARCH]
        tried = tried_rates(near, self.found.binding, self.settings.arrivals, self.found.facts)
        return sum(one.missed for one in tried) >= FEWEST_MISSED

    def _until_chunk_s(self, visit: Visit) -> float:
        """Return the length of the next step: a slice, or less to the end of a chunk."""
        chunk_s, counted_s = self.settings.chunk_s, visit.end_s - visit.counted_from_s
        rest_s = chunk_s - counted_s % chunk_s
        return min(self.settings.slice_s, rest_s if rest_s > MOMENT * chunk_s else chunk_s)

    def _confirm(self, why: str, last: Visit, facts: ServerFacts) -> Step | None:
        """End the search and measure: at the lower rate, or at the last rate of a ramp without an overload."""
        self.ended, settings = why, self.settings
        if not settings.confirm_s:
            return None
        rate = last.rate if self.found is None else max(self.found.lower, on_grid(0.0, facts.most_rps))
        settle_s = self._settle_s(rate, facts)
        return self._begin(State.CONFIRM, rate, last.end_s, settle_s + settings.confirm_s, settle_s)

    def _after_confirmation(self, requests: Requests, visit: Visit) -> None:
        self.conclude(requests)

    def conclude(self, requests: Requests) -> None:
        """Estimate the threshold from everything."""
        facts = facts_of(requests, self.visits)
        if math.isfinite(facts.most_rps):
            self.found = find(
                self.observed(requests), self.settings.requirements, self.settings.arrivals, facts, self.settings.ttft_s
            )

    def _settle_s(self, rate: float, facts: ServerFacts) -> float:
        settle_s = max(
            self.settings.settle_s,
            SETTLE_TIMES * facts.relaxation_s(rate, self.settings.arrivals),
            facts.service_s,
        )
        return min(settle_s, self._longest_settling_s)

    @property
    def _longest_settling_s(self) -> float:
        return self.settings.chunk_s

    def _out_of_time(self, visit: Visit) -> bool:
        """Return True if only the time for the confirmation is left."""
        settings = self.settings
        spent_s = visit.end_s - self.visits[0].start_s + settings.slice_s
        kept_s = settings.confirm_s + self._longest_settling_s if settings.confirm_s else 0.0
        return spent_s + kept_s > settings.budget_s


def on_grid(rate: float, most_rps: float) -> float:
    """Return a rate rounded to the grid of the search, so that visits of nearly the same rate are one rate."""
    step = STEP * most_rps
    return step * max(1, round(rate / step))
