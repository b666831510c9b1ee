"""Throughput against users: the universal scalability law, and a law with a ceiling such as the KV cache's.

    USL      X(N) = gamma N / (1 + alpha (N - 1) + beta N (N - 1))          Gunther 1993
    ceiling  X(N) = min(gamma N / (1 + alpha (N - 1)), X at the ceiling)

gamma is the throughput of one user, alpha the contention, beta the cost of coherency. The USL has its peak at
sqrt((1 - alpha) / beta) users. With a ceiling, throughput stays level from some number of users on: a server that runs
at most so many requests at once, by its slots or its KV cache.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from harness.analysis.stats import Floats
from harness.fits.curve import Curve, Fitted, Interval, Points, fit
from harness.fits.refusal import Refusal, unlike_the_points

USL, CEILING = "usl", "ceiling"
FEWEST = 6  # numbers of users
MUCH_BETTER = 2.0  # difference of AICc from which on it decides alone
FARTHEST = 2.0  # times the largest number of users: no peak is predicted beyond
_LEAST = 1e-9  # of a denominator
_OPEN = 1000.0  # times the largest number of users: an end there is open


@dataclass(frozen=True, slots=True)
class Throughput:
    """Law of the throughput of a sweep by users.

    Attributes:
        law: USL or CEILING.
        parameters: `gamma`, `alpha`, and `beta` (USL) or `most`, the throughput at the ceiling.
        peak: Users at the peak, or from which on throughput is level.
        is_near: True if the peak is at most twice the largest number of users that was measured.
        hold_out: Mean error at a number of users that the law was fitted without, as a share.
        fitted: The law as fitted.
    """

    law: str
    parameters: Mapping[str, Interval]
    peak: Interval
    is_near: bool
    hold_out: float
    fitted: Fitted


def throughput(points: Points) -> Throughput | Refusal:
    """Return the law that fits throughput (y) against users (x), or why none does.

    Of two laws that can be, the lower AICc decides if it is lower by MUCH_BETTER, else the lower hold-out error.
    """
    if len(points) < FEWEST:
        return Refusal(f"{len(points)} numbers of users were measured well, and {FEWEST} are needed")
    usl, ceiling = fit(_USL, points), fit(_CEILING, points)
    possible = [one for one, can_be in ((usl, usl.parameters[2] >= 0), (ceiling, _is_reached(ceiling))) if can_be]
    if not possible:
        return Refusal(
            f"beta is {usl.parameters[2]:.2g}, below 0: throughput still grows faster than the law allows; "
            "measure more users"
        )
    best = _better(possible)
    if refused := unlike_the_points(best.hold_out):
        return refused
    return _law(best, USL if best is usl else CEILING)


def _better(possible: list[Fitted]) -> Fitted:
    first, *others = sorted(possible, key=lambda one: one.aicc)
    near = [first, *(one for one in others if one.aicc - first.aicc < MUCH_BETTER)]
    return min(near, key=lambda one: one.hold_out)


def _law(best: Fitted, law: str) -> Throughput:
    points = best.points
    if law == USL:
        peak = _open(fit(_USL_BY_PEAK, points).interval("peak"), points)
        parameters = {name: best.interval(name) for name in best.curve.names}
    else:
        peak = _open(best.interval("peak"), points)
        parameters = {name: best.interval(name) for name in ("gamma", "alpha")}
        parameters["most"] = fit(_CEILING_BY_MOST, points).interval("most")
    return Throughput(law, parameters, peak, bool(peak.value <= FARTHEST * points.x.max()), best.hold_out, best)


def _open(peak: Interval, points: Points) -> Interval:
    """Return a peak whose ends are infinite where they are as large as is followed."""
    largest = _OPEN * points.x.max()
    return Interval(*(math.inf if end >= largest else end for end in (peak.value, peak.low, peak.high)))


def _is_reached(ceiling: Fitted) -> bool:
    """Return True if points lie on both sides of the ceiling: two below it, one beyond."""
    x, peak = ceiling.points.x, ceiling.parameters[2]
    return bool((x < peak).sum() >= 2 and (x > peak).sum() >= 1)


def _usl(parameters: Floats, users: Floats) -> Floats:
    gamma, alpha, beta = parameters[0], _contention(parameters[1]), parameters[2]
    below = np.maximum(1 + alpha * (users - 1) + beta * users * (users - 1), _LEAST)
    return np.asarray(gamma * users / below, dtype=np.float64)


def _begin_usl(points: Points) -> Floats:
    """Return a first guess: N / X is linear in 1, N - 1 and N (N - 1)."""
    users = points.x
    features = np.stack([np.ones(len(users)), users - 1, users * (users - 1)], axis=1)
    return _linear_guess(features, points)


def _linear_guess(features: Floats, points: Points) -> Floats:
    """Return gamma, alpha and what follows from N / X = (1 + alpha ... ) / gamma, weighted like the points."""
    inverse = points.x / points.y
    weights = points.y / points.errors / inverse  # errors of N / X by those of X
    inverse_gamma, *others = np.linalg.lstsq(features * weights[:, None], inverse * weights, rcond=None)[0]
    if inverse_gamma <= 0:
        inverse_gamma = float(inverse.min())
    return np.array([1 / inverse_gamma, *(one / inverse_gamma for one in others)])


def _usl_by_peak(parameters: Floats, users: Floats) -> Floats:
    gamma, alpha, peak = parameters
    return _usl(np.array([gamma, alpha, (1 - _contention(alpha)) / max(peak, _LEAST) ** 2]), users)


def _begin_by_peak(points: Points) -> Floats:
    gamma, alpha, beta = fit(_USL, points).parameters
    peak = math.sqrt((1 - _contention(alpha)) / beta) if beta > 0 and alpha < 1 else _OPEN * points.x.max()
    return np.array([gamma, alpha, peak])


def _amdahl(gamma: float, alpha: float, users: Floats) -> Floats:
    return np.asarray(gamma * users / (1 + _contention(alpha) * (users - 1)), dtype=np.float64)


def _contention(alpha: float) -> float:
    """Return a contention that can be: users do not speed each other up, so one below 0 is none."""
    return max(float(alpha), 0.0)


def _ceiling(parameters: Floats, users: Floats) -> Floats:
    gamma, alpha, peak = parameters
    return _amdahl(gamma, alpha, np.minimum(users, max(peak, _LEAST)))


def _begin_ceiling(points: Points) -> Floats:
    """Return the best guess over where the level part begins: a line through N / X below it, the mean above it."""
    guesses = []
    order = np.argsort(points.x)
    sorted_points = Points(*(one[order] for one in (points.x, points.y, points.errors)))
    for first in range(2, len(points)):
        below = Points(*(one[:first] for one in (sorted_points.x, sorted_points.y, sorted_points.errors)))
        features = np.stack([np.ones(first), below.x - 1], axis=1)
        gamma, alpha = _linear_guess(features, below)
        most = float(np.average(sorted_points.y[first:], weights=sorted_points.errors[first:] ** -2))
        alpha = _contention(alpha)
        room = gamma - alpha * most
        peak = most * (1 - alpha) / room if room > 0 and alpha < 1 else float(sorted_points.x[-1])
        guesses.append(np.array([gamma, alpha, min(max(peak, 1.0), float(sorted_points.x[-1]))]))
    costs = [float((((_ceiling(one, points.x) - points.y) / points.errors) ** 2).sum()) for one in guesses]
    return guesses[int(np.argmin(costs))]


def _ceiling_by_most(parameters: Floats, users: Floats) -> Floats:
    gamma, alpha, most = parameters
    return np.asarray(np.minimum(_amdahl(gamma, alpha, users), most), dtype=np.float64)


def _begin_by_most(points: Points) -> Floats:
    gamma, alpha, peak = fit(_CEILING, points).parameters
    return np.array([gamma, alpha, float(_amdahl(gamma, alpha, np.array([peak]))[0])])


def _bounds(points: Points, name: str) -> tuple[float, float]:
    largest = float(points.x.max())
    found = {"gamma": (0.0, math.inf), "alpha": (0.0, 1.0), "peak": (1.0, _OPEN * largest)}
    return found.get(name, (-math.inf, math.inf))


_USL = Curve(("gamma", "alpha", "beta"), _usl, _begin_usl, _bounds)
_USL_BY_PEAK = Curve(("gamma", "alpha", "peak"), _usl_by_peak, _begin_by_peak, _bounds)
_CEILING = Curve(("gamma", "alpha", "peak"), _ceiling, _begin_ceiling, _bounds)
_CEILING_BY_MOST = Curve(("gamma", "alpha", "most"), _ceiling_by_most, _begin_by_most, _bounds)
