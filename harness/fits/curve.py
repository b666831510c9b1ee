"""Weighted least squares of a curve through a few points: profile intervals, AICc, and the error on points held out."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np

from harness.analysis.stats import Floats

SURE = 0.95  # of an interval
_GROWTH, _MOST_STEPS = 1.8, 40
_TOLERANCE = 1e-3  # of an interval's ends, as a share of the first step


@dataclass(frozen=True, slots=True)
class Points:
    """Measured points of a curve. errors: standard errors of y."""

    x: Floats
    y: Floats
    errors: Floats

    def __len__(self) -> int:
        return len(self.x)

    def without(self, place: int) -> Points:
        """Return all points but one."""
        return Points(*(np.delete(one, place) for one in (self.x, self.y, self.errors)))


@dataclass(frozen=True, slots=True)
class Curve:
    """Family of curves.

    Attributes:
        names: Names of its parameters.
        value: Function of the parameters and x.
        begin: Function that guesses the parameters from points.
        bounds: Least and largest value of a parameter, by name; an interval ends there at the latest.
    """

    names: tuple[str, ...]
    value: Callable[[Floats, Floats], Floats]
    begin: Callable[[Points], Floats]
    bounds: Callable[[Points, str], tuple[float, float]] = lambda _, __: (-math.inf, math.inf)


@dataclass(frozen=True, slots=True)
class Interval:
    """Number with its 95 % interval; an end is infinite where nothing bounds it."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Fitted:
    """Curve through points. cost: sum of the squared residuals in standard errors."""

    curve: Curve
    points: Points
    parameters: Floats
    cost: float

    @property
    def degrees(self) -> int:
        """Degrees of freedom."""
        return len(self.points) - len(self.parameters)

    @property
    def scale(self) -> float:
        """Variance of the residuals over that of the points: at least 1, for points vary beyond their own errors."""
        return max(1.0, self.cost / self.degrees)

    @property
    def aicc(self) -> float:
        """Akaike's criterion; see `aicc`."""
        return aicc(len(self.points), len(self.parameters), self.cost)

    @cached_property
    def hold_out(self) -> float:
        """Mean error at a point that the curve was fitted without, as a share of the point: each point once."""
        errors = []
        for place in range(len(self.points)):
            x, y = self.points.x[place : place + 1], self.points.y[place]
            parameters = fit(self.curve, self.points.without(place)).parameters
            errors.append(abs(float(self.curve.value(parameters, x)[0]) - y) / y)
        return float(np.mean(errors))

    def at(self, x: Floats) -> Floats:
        """Return the curve at x."""
        return self.curve.value(self.parameters, x)

    def holds(self, name: str, value: float) -> bool:
        """Return True if a parameter's 95 % interval holds a value."""
        return self._excess(value, self.curve.names.index(name)) <= 0

    def interval(self, name: str) -> Interval:
        """Return a parameter with its interval: the values with which the others still fit (profile likelihood)."""
        place = self.curve.names.index(name)
        low, high = self.curve.bounds(self.points, name)
        value = min(max(float(self.parameters[place]), low), high)
        return Interval(value, self._end(place, -1.0, low), self._end(place, 1.0, high))

    def _end(self, place: int, sign: float, bound: float) -> float:
        """Return an end of an interval: stride outwards until the fit is too bad, then close in."""
        from scipy.optimize import brentq

        value = float(self.parameters[place])
        stride = self._wald(place) or abs(value) or 1.0
        inner, outer = value, value
        for number in range(_MOST_STEPS):
            inner, outer = outer, outer + sign * stride * _GROWTH**number
            beyond = sign * (outer - bound) >= 0
            outer = bound if beyond else outer
            if self._excess(outer, place) > 0:
                found = brentq(partial(self._excess, place=place), inner, outer, xtol=_TOLERANCE * stride)
                return float(found)
            if beyond:
                break
        return bound

    def _wald(self, place: int) -> float:
        """Return about half the width of an interval, by the slopes of the curve; 0 if they do not say."""
        steps = np.maximum(np.abs(self.parameters), 1e-6) * 1e-4
        slopes = np.stack(
            [(self._residuals(self.parameters + step) - self._residuals(self.parameters - step)) / (2 * abs(step).max())
             for step in np.diag(steps)],
            axis=1,
        )  # fmt: skip
        variance = np.linalg.pinv(slopes.T @ slopes)[place, place] * self.scale
        return float(math.sqrt(variance)) if variance > 0 else 0.0

    def _residuals(self, parameters: Floats) -> Floats:
        found: Floats = (self.curve.value(parameters, self.points.x) - self.points.y) / self.points.errors
        return found

    def _excess(self, value: float, place: int) -> float:
        """Return how much worse than at the ends of the interval the best fit with this value is; negative inside."""
        from scipy.stats import t

        limit = self.scale * float(t.ppf((1 + SURE) / 2, self.degrees)) ** 2
        kept = np.delete(np.arange(len(self.parameters)), place)

        def residuals(others: Floats) -> Floats:
            whole = np.empty(len(self.parameters))
            whole[place], whole[kept] = value, others
            return self._residuals(whole)

        return _minimum(residuals, self.parameters[kept])[1] - self.cost - limit


def aicc(n: int, parameters: int, cost: float) -> float:
    """Return Akaike's criterion of least squares of unknown scale, corrected for few points (Hurvich and Tsai 1989).

    Args:
        n: Number of points.
        cost: Weighted sum of the squared residuals.
    """
    k = parameters + 1
    if n <= k + 1:
        return math.inf
    return n * math.log(max(cost, 1e-12) / n) + 2 * k + 2 * k * (k + 1) / (n - k - 1)


def fit(curve: Curve, points: Points) -> Fitted:
    """Return the curve with the least squared residuals."""

    def residuals(parameters: Floats) -> Floats:
        found: Floats = (curve.value(parameters, points.x) - points.y) / points.errors
        return found

    return Fitted(curve, points, *_minimum(residuals, curve.begin(points)))


def _minimum(residuals: Callable[[Floats], Floats], begin: Floats) -> tuple[Floats, float]:
    """Return the parameters with the least sum of squares, and that sum."""
    from scipy.optimize import least_squares

    if not len(begin):
        return begin, float(np.sum(residuals(begin) ** 2))
    found = least_squares(residuals, begin, method="lm")
    return np.asarray(found.x, dtype=np.float64), 2 * float(found.cost)
