"""Threshold model: what all rates tried together say of the largest rate that keeps a requirement.

The share of missed requests rises with the rate along a logistic curve through the allowed share at the threshold:

    logit v(rate) = logit(1 - share) + slope * (rate / threshold - 1)

The slope is lognormal before anything is seen, around what a queue of the server's facts has at the threshold
(`ServerFacts.steepness`), or around 22. The threshold is uniform on its range. Each rate contributes a binomial
likelihood with its effective number of requests.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from harness.analysis.stats import Floats

STEEPNESS = 22.0  # of 32 servers whose waits are bounded by half a service
SPREAD = 0.7  # standard deviation of the logarithm of the slope
RATES, SLOPES = 213, 40
SURE = 0.9  # of the lower bound and of the upper bound, each by itself
FLOOR = 0.5  # weight of the least rate, as a share of the greatest weight, from which nothing bounds it from below


@dataclass(frozen=True, slots=True)
class Tried:
    """Rate tried: the effective number of requests, and how many of them missed."""

    rate: float
    effective: float
    missed: float


@dataclass(frozen=True)
class Estimate:
    """Posterior of the threshold rate of one requirement: weights on a grid of rates, which sum to 1."""

    rates: Floats
    weights: Floats

    def at(self, probability: float) -> float:
        """Return a quantile of the threshold, in requests/s."""
        return float(np.interp(probability, self._below, self._edges))

    @property
    def lower(self) -> float:
        """Rate that the threshold exceeds with a probability of 90 %: the rate to plan with."""
        return self.at(1 - SURE)

    @property
    def value(self) -> float:
        """Median of the threshold."""
        return self.at(0.5)

    @property
    def upper(self) -> float:
        """Rate below which the threshold lies with a probability of 90 %."""
        return self.at(SURE)

    @property
    def half_width(self) -> float:
        """Half the width of the central 90 % interval, as a share of the median."""
        return (self.at(0.95) - self.at(0.05)) / 2 / self.value

    @property
    def at_floor(self) -> bool:
        """Return True if the threshold may well be below the least rate of the range: no rate is known to keep it."""
        return bool(self.weights[0] >= FLOOR * self.weights.max())

    @cached_property
    def _edges(self) -> Floats:
        half = (self.rates[1] - self.rates[0]) / 2
        return np.concatenate([self.rates - half, [self.rates[-1] + half]])

    @cached_property
    def _below(self) -> Floats:
        return np.concatenate([[0.0], np.cumsum(self.weights)])


def estimate(
    tried: Sequence[Tried],
    share: float,
    least: float,
    most: float,
    error: float = 0.0,
    steepness: Callable[[Floats], Floats] | None = None,
) -> Estimate:
    """Return the posterior of the threshold.

    The prior is uniform from `least` to `most` requests/s. `error` is the standard error of `most`, as a share of it:
    then the prior falls off like the probability that `most` is in truth above the rate. `steepness` is the middle of
    the slope's prior for each threshold.
    """
    rates = np.linspace(least, most * (1 + 2 * error), RATES)
    middle = np.full(RATES, STEEPNESS) if steepness is None else steepness(rates)
    deviations = np.linspace(-2.5, 2.5, SLOPES)
    slope = np.exp(np.log(middle)[:, None] + SPREAD * deviations)
    log_weight = -(deviations**2) / 2 + _log_of_edge(rates, most, error)[:, None]
    base = math.log((1 - share) / share)
    for one in tried:
        logit = base + slope * (one.rate / rates[:, None] - 1)
        # log v = -log(1 + e^-logit), log(1 - v) = -log(1 + e^logit)
        log_weight -= one.missed * np.logaddexp(0, -logit)
        log_weight -= (one.effective - one.missed) * np.logaddexp(0, logit)
    weights = np.exp(log_weight - log_weight.max()).sum(axis=1)
    return Estimate(rates, weights / weights.sum())


def _log_of_edge(rates: Floats, most: float, error: float) -> Floats:
    """Return the logarithm of the prior at the rates, up to a constant: a normal tail around `most`."""
    if error <= 0:
        return np.zeros(len(rates))
    above = [math.erfc((rate - most) / (most * error) / math.sqrt(2)) / 2 for rate in rates]
    found: Floats = np.log(np.array(above))
    return found
