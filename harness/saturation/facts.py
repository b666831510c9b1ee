"""Facts of a server that the first part of a search finds: service time, its variation, and its largest throughput."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from harness.analysis.stats import Floats
from harness.saturation.observed import State, Visit
from harness.saturation.posterior import STEEPNESS
from harness.saturation.requests import Requests

BUSY_UNTIL = 0.5  # of the largest backlog, which is over twice the requests that the server can hold at once
UNQUEUED = 0.6  # of the largest throughput: up to this rate, few requests wait
FEW = 8  # requests of the first rate that met an empty server, whatever that rate is
LEAST_VARIATION = 0.1  # of arrivals and services together: constant ones have no tail at all
NEAREST = 0.03  # least distance to saturation in the relaxation time, which is infinite there


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """What is known of the server.

    Attributes:
        service_s: Mean time of a request at low load; NaN unknown.
        variation: Squared coefficient of variation of that time.
        most_rps: Largest rate of completed requests seen under overload; infinite where none was seen.
        error: Standard error of `most_rps`, as a share of it.
        ttft_s: Median time to the first token at low load; NaN unknown.
    """

    service_s: float
    variation: float
    most_rps: float = math.inf
    error: float = 0.0
    ttft_s: float = math.nan

    def steepness(self, rates: Floats, bound_s: float | None, arrivals: float) -> Floats:
        """Return how steeply the share of late first tokens rises at each rate, per unit of log rate.

        Waits have the tail C exp(-2 (1 - rho) X t / (Ca^2 + Cs^2)) (Kingman; Allen and Cunneen), with t what the bound
        leaves for waiting. C is the share that waits at all, by Halfin and Whitt (1981) for X times the service time
        servers. Unknown facts, and bounds on other latencies, give STEEPNESS.
        """
        wait_s = math.nan if bound_s is None else bound_s - (0.0 if math.isnan(self.ttft_s) else self.ttft_s)
        if not (wait_s > 0 and math.isfinite(self.most_rps) and self.service_s > 0):
            return np.full(len(rates), STEEPNESS)
        servers = max(1.0, self.most_rps * self.service_s)
        load = np.minimum(rates / self.most_rps, 1 - NEAREST)
        tail = 2 * load * self.most_rps * wait_s / max(LEAST_VARIATION, arrivals + self.variation)
        beta = (1 - load) * math.sqrt(servers)
        density = np.exp(-(beta**2) / 2) / math.sqrt(2 * math.pi)
        below = np.array([math.erfc(-one / math.sqrt(2)) / 2 for one in beta])
        hazard = density / below  # 0 of many servers, where its inverse is infinite
        waits = math.sqrt(servers) * load * (1 + beta * hazard + beta**2) / (hazard + beta)
        return np.asarray(tail + waits, dtype=np.float64)

    def relaxation_s(self, rate: float, arrivals: float) -> float:
        """Return the relaxation time of the queue at a rate: how long its length remembers what it was.

        Heavy traffic: (Ca^2 + Cs^2) / (2 X (1 - rho)^2), with X the largest throughput and rho = rate / X.

        Args:
            arrivals: Squared coefficient of variation of the gaps between arrivals.
        """
        if not math.isfinite(self.most_rps):
            return 0.0
        distance = max(NEAREST, 1 - rate / self.most_rps)
        return (arrivals + self.variation) / (2 * self.most_rps * distance**2)


def facts_of(requests: Requests, visits: Sequence[Visit]) -> ServerFacts:
    """Return the facts that the visits so far show."""
    most, error = _throughput(requests, visits)
    ramp = [one for one in visits if one.state is State.RAMP]
    kept_up = [one for one in ramp if not one.overloaded]
    calm = [one for one in kept_up if one.rate <= UNQUEUED * most] if math.isfinite(most) else []
    calm = calm or kept_up[:1] or ramp[:1]
    parts = [requests.e2e_s[requests.between(one.start_s, one.end_s)] for one in calm]
    times = np.concatenate(parts) if parts else np.empty(0)
    times = times[np.isfinite(times)]
    if len(kept_up) <= 1 and not math.isfinite(most):
        times = times[:FEW]
    if not len(times):
        return ServerFacts(math.nan, 1.0, most, error)
    mean = float(times.mean())
    variation = float(times.var() / mean**2) if len(times) > 1 and mean > 0 else 1.0
    first = np.concatenate([requests.ttft_s[requests.between(one.start_s, one.end_s)] for one in calm])
    known = first[np.isfinite(first)]
    return ServerFacts(mean, variation, most, error, float(np.median(known)) if len(known) else math.nan)


def _throughput(requests: Requests, visits: Sequence[Visit]) -> tuple[float, float]:
    """Return the completed rate of the overload that ended the ramp, and its standard error; infinite without one.

    Requests are counted while every place of the server was busy: from the moment at which the backlog had reached that
    level, through the pause after the visit. Those that began together end together, which takes twice the time of a
    request to even out.
    """
    found = [
        _under_overload(requests, visits, place)
        for place, one in enumerate(visits)
        if one.overloaded and one.state is State.RAMP
    ]
    count, seconds = sum(count for count, _ in found), sum(seconds for _, seconds in found)
    return (count / seconds, 1 / math.sqrt(count)) if count and seconds > 0 else (math.inf, 0.0)


def _under_overload(requests: Requests, visits: Sequence[Visit], place: int) -> tuple[int, float]:
    """Return the requests completed while the backlog of an overloaded visit was large, and those seconds."""
    start_s, end_s = visits[place].start_s, visits[place].end_s
    if place + 1 < len(visits) and visits[place + 1].state is State.PAUSE:
        end_s = visits[place + 1].end_s
    at_s = np.linspace(start_s, end_s, 200)
    in_flight = requests.in_flight(at_s)
    busy = at_s[in_flight >= BUSY_UNTIL * in_flight.max()]
    begun_s = max(float(busy[0]), start_s)
    return requests.completed(begun_s, float(busy[-1])), float(busy[-1]) - begun_s
