"""Due times of requests in an open loop: pure functions of rate, length and seed.

Every process draws arrivals of rate 1: constant ones, exponential gaps (Poisson) or gamma-distributed gaps. The inverse
of the rate's integral maps them to time (time rescaling; no arrival is discarded). A longer schedule begins with the
shorter one. The last arrival is not moved to n / rate: this would turn a Poisson process into a bridge, whose counts
vary less.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from harness.scenario.loads.rates import RateShape, check_rate

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]
NS_PER_S = 1_000_000_000
_DRAWS_AT_ONCE = 65_536


class Process(StrEnum):
    """Process of single arrivals around the rate."""

    CONSTANT = "constant"
    POISSON = "poisson"
    GAMMA = "gamma"


def constant(rate: float, *, start_ns: int = 0, end_ns: int | None = None, count: int | None = None) -> Int64:
    """Return arrivals at start + i / rate, rounded down to the nanosecond, without drift.

    Either all arrivals in [start_ns, end_ns) or the first `count`. `rate` (requests/s) is read as a decimal number: 0.1
    is exactly one request every 10 s.
    """
    _one_limit(end_ns, count)
    check_rate(rate)
    period_ns = NS_PER_S / Fraction(repr(float(rate)))
    if count is None:
        assert end_ns is not None
        count = max(0, -((start_ns - end_ns) // period_ns))
    whole, rest = divmod(period_ns.numerator, period_ns.denominator)
    if rest * max(count, 1) >= 2**63:
        exact = [start_ns + i * period_ns.numerator // period_ns.denominator for i in range(count)]
        return np.array(exact, dtype=np.int64)
    index = np.arange(count, dtype=np.int64)
    return start_ns + index * whole + index * rest // period_ns.denominator


def steady(
    process: Process,
    rate: float,
    random: np.random.Generator,
    *,
    cv: float = 1.0,
    start_ns: int = 0,
    end_ns: int | None = None,
    count: int | None = None,
) -> Int64:
    """Return arrivals at a constant rate, with random gaps unless the process is constant. Limits as in `constant`.

    Args:
        cv: Coefficient of variation of the gaps of a gamma process; 1 is Poisson. Over long windows, the variance of
            counts is cv^2 times their mean.
    """
    if process is Process.CONSTANT:
        return constant(rate, start_ns=start_ns, end_ns=end_ns, count=count)
    _one_limit(end_ns, count)
    check_rate(rate)
    length = None if end_ns is None else (end_ns - start_ns) * rate / NS_PER_S
    return start_ns + np.floor(_unit(process, cv, random, length, count) * (NS_PER_S / rate)).astype(np.int64)


def changing(
    shape: RateShape,
    process: Process,
    random: np.random.Generator,
    *,
    cv: float = 1.0,
    start_ns: int = 0,
    end_ns: int | None = None,
    count: int | None = None,
    anchor_ns: int = 0,
) -> Int64:
    """Return arrivals at a changing rate. Limits as in `constant`.

    Args:
        cv: Coefficient of variation of the gaps of a gamma process, in expected arrivals.
        anchor_ns: Start of the shape, which is the start of the measurement.
    """
    _one_limit(end_ns, count)
    begin = shape.mass_until((start_ns - anchor_ns) / NS_PER_S)
    length = None if end_ns is None else shape.mass_until((end_ns - anchor_ns) / NS_PER_S) - begin
    unit = _unit(process, cv, random, length, count)
    at_ns = np.floor(shape.time_at(begin + unit) * NS_PER_S).astype(np.int64) + anchor_ns
    at_ns = np.maximum(at_ns, start_ns)
    return at_ns if end_ns is None else at_ns[at_ns < end_ns]


def spike(requests: int, within_s: float, random: np.random.Generator, *, start_ns: int = 0) -> Int64:
    """Return `requests` arrivals, uniformly distributed over `within_s` from `start_ns` on (0: all at once)."""
    if requests < 0 or within_s < 0:
        raise ValueError(f"a spike must not have negative requests or width: {requests}, {within_s}")
    return start_ns + np.floor(np.sort(random.random(requests)) * within_s * NS_PER_S).astype(np.int64)


def _one_limit(end_ns: int | None, count: int | None) -> None:
    if (end_ns is None) == (count is None):
        raise ValueError("give either end_ns or count")


def _unit(process: Process, cv: float, random: np.random.Generator, length: float | None, count: int | None) -> Float64:
    """Return arrivals of a process of rate 1: all below `length`, or the first `count`."""
    if process is Process.GAMMA:
        return _unit_gamma(cv, random, length, count)
    if process is Process.POISSON:
        return _renewals(random.standard_exponential, length, count)
    return np.arange(count if count is not None else int(np.ceil(max(length or 0.0, 0.0))), dtype=np.float64)


def _unit_gamma(cv: float, random: np.random.Generator, length: float | None, count: int | None) -> Float64:
    """Return arrivals with gaps Gamma(k, 1/k), k = 1 / cv^2, observed from a random instant.

    A random instant falls into a gap with a probability proportional to its length. The first gap is therefore a
    uniform share of Gamma(k + 1, 1/k) (renewal theory, e.g. Cox 1962, 5.1-5.2). With a whole first gap, the first
    seconds of clumped arrivals would be too dense by (cv^2 - 1) / 2 requests.
    """
    if not 0 < cv < float("inf"):
        raise ValueError(f"a coefficient of variation must be a positive number, found {cv}")
    shape = cv**-2
    first = random.random() * random.standard_gamma(shape + 1) / shape
    later = _renewals(
        lambda size: random.standard_gamma(shape, size) / shape,
        None if length is None else length - first,
        None if count is None else max(count - 1, 0),
    )
    arrivals = np.concatenate([[first], first + later])
    return arrivals[:count] if length is None else arrivals[arrivals < length]


def _renewals(gaps: Callable[[int], Float64], length: float | None, count: int | None) -> Float64:
    """Return arrivals with the given gaps: all below `length`, or the first `count`."""
    parts: list[Float64] = [np.zeros(1)]
    while (len(parts) - 1) * _DRAWS_AT_ONCE < count if count is not None else parts[-1][-1] < (length or 0.0):
        parts.append(parts[-1][-1] + np.cumsum(gaps(_DRAWS_AT_ONCE)))
    arrivals = np.concatenate(parts)[1:]
    return arrivals[:count] if length is None else arrivals[arrivals < length]
