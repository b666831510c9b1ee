"""Noise of a series: its spread, its memory from night to night, and nights that stand alone; pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise

import numpy as np

from harness.analysis.stats import Flags, Floats

MAD = 1.4826
"""Standard deviation of normal values in units of their median absolute deviation."""
SPIKE_WIDTH = 5
SPIKE_SIGMAS = 4.0
WEEK, MOST_TOGETHER = 7, 3
UNDECIDED = 2
"""Nights at the end that are no change yet."""
LEAST_NIGHTS = 10
"""Nights below which a spread or a correlation is a guess."""
TREND_NIGHTS = 20
"""Nights from which a regime is centred by a line: a creeping change is no memory of the noise."""
MOST_CORRELATION = 0.95
AUTOCORRELATED = 0.3
SURE = 1.645
"""Standard errors below an estimate beyond which the true value lies with 5 %."""
LEAST_NOISY = 5
"""Nights that tell a wider spread."""
NOISIER_LIKELIHOOD = 12.0
"""Twice the logarithm of the likelihood ratio from which on the later of two spreads is the wider one."""
STEADY, USUAL, LOUD = 0.01, 0.03, 0.1


class NoiseClass(StrEnum):
    """Noise of a series: by the relative spread of its nights, and by their dependence."""

    STEADY = "steady"
    USUAL = "usual"
    LOUD = "loud"
    NOISY = "noisy"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Noise:
    """Noise of the nights around their levels.

    Attributes:
        sigma: Robust standard deviation of a night, on the scale of the values; NaN if unknown.
        correlation: Lag-1 autocorrelation, corrected for the bias of short series; NaN if unknown.
        nights: Nights that both are from.
    """

    sigma: float
    correlation: float
    nights: int

    @property
    def inflation(self) -> float:
        """Factor of the variance of a mean of many nights, for their first-order autocorrelation; at least 1."""
        known = self.correlation if math.isfinite(self.correlation) else 0.0
        rho = min(max(known, 0.0), MOST_CORRELATION)
        return (1 + rho) / (1 - rho)

    @property
    def dependent(self) -> bool:
        """Whether nights follow each other so closely that a test of independent ones is wrong.

        Above AUTOCORRELATED for sure.
        """
        if self.nights < TREND_NIGHTS:
            return False
        return self.correlation > AUTOCORRELATED + SURE / math.sqrt(self.nights)

    @property
    def word(self) -> NoiseClass:
        """Class of the noise, of values on a logarithmic scale or of shares."""
        if self.nights < LEAST_NIGHTS or not math.isfinite(self.sigma):
            return NoiseClass.UNKNOWN
        if self.dependent or self.sigma > LOUD:
            return NoiseClass.NOISY
        return (
            NoiseClass.STEADY if self.sigma <= STEADY else NoiseClass.USUAL if self.sigma <= USUAL else NoiseClass.LOUD
        )


def robust_sigma(residuals: Floats) -> float:
    """Return the standard deviation from the median absolute deviation from zero; NaN without values."""
    n = len(residuals)
    if n < 2:
        return math.nan
    return MAD * median(np.abs(residuals)) * n / (n - 0.8)


def step_sigma(values: Floats) -> float:
    """Return the standard deviation from the differences of neighbours, which steps of the level hardly change."""
    return robust_sigma(np.diff(values)) / math.sqrt(2) if len(values) > 2 else math.nan


def median(values: Floats) -> float:
    """Return the median of some values: `numpy.median` takes ten times as long for so few."""
    ordered, n = np.sort(values), len(values)
    return float(ordered[(n - 1) // 2] + ordered[n // 2]) / 2 if n else math.nan


def running_median(values: Floats, width: int = SPIKE_WIDTH) -> Floats:
    """Return the median of the `width` values around each, an odd number; fewer at the ends."""
    half, n = width // 2, len(values)
    found: Floats = np.array(values)
    if n >= width:
        windows = np.sort(np.lib.stride_tricks.sliding_window_view(values, width), axis=1)
        found[half : n - half] = windows[:, half]
    for place in {*range(min(half, n)), *range(max(0, n - half), n)}:
        found[place] = median(values[max(0, place - half) : place + half + 1])
    return found


def spikes(values: Floats, middle: Floats | None = None) -> Flags:
    """Return which values stand alone: more than four standard deviations from the median of the five around them.

    Hampel's filter, with the spread of the whole series in place of that of five values. Several of them within a week
    do not stand alone: they are noise. middle: The running median, where it is known already.
    """
    sigma = step_sigma(values)
    if not math.isfinite(sigma):
        return np.zeros(len(values), dtype=bool)
    away: Flags = np.abs(values - (running_median(values) if middle is None else middle)) > SPIKE_SIGMAS * sigma
    if away.sum() >= MOST_TOGETHER and len(values) >= WEEK:
        together = np.convolve(away, np.ones(WEEK), "same") >= MOST_TOGETHER  # in the week around each night
        away &= ~np.convolve(together, np.ones(WEEK), "same").astype(bool)
    return away


def without_spikes(values: Floats) -> Floats:
    """Return the values with those that stand alone replaced by the median around them.

    One or two of them at the end are replaced as well: nobody knows yet whether others follow.
    """
    sigma = step_sigma(values)
    around = running_median(values)
    cleaned: Floats = np.where(spikes(values, around), around, values)
    if len(values) < SPIKE_WIDTH + UNDECIDED or not math.isfinite(sigma):
        return cleaned
    middle = median(values[-SPIKE_WIDTH - UNDECIDED : -UNDECIDED])
    away = np.abs(values[-UNDECIDED - 1 :] - middle) > SPIKE_SIGMAS * sigma
    if not away[0]:
        cleaned[-UNDECIDED:][away[1:]] = middle
    return cleaned


def alike_from(values: Floats) -> int:
    """Return the first of the nights up to the last that are about as noisy as the last ones.

    Of all divisions of normal nights into two spreads, the later of them the wider one, the most likely; 0 if one
    spread explains them about as well.
    """
    n = len(values)
    if n < LEAST_NIGHTS + LEAST_NOISY:
        return 0
    away = values - median(values)
    most = SPIKE_SIGMAS * step_sigma(values)
    squares = np.cumsum(np.clip(away, -most, most) ** 2) + 1e-300
    before = np.arange(LEAST_NIGHTS, n - LEAST_NOISY + 1)
    after = n - before
    early, late = squares[before - 1] / before, (squares[-1] - squares[before - 1]) / after + 1e-300
    likelihood = n * np.log(squares[-1] / n) - before * np.log(early) - after * np.log(late)
    likelihood[late < early] = 0.0
    best = int(np.argmax(likelihood))
    return int(before[best]) if likelihood[best] > NOISIER_LIKELIHOOD else 0


def residuals(values: Floats, cuts: Sequence[int]) -> list[Floats]:
    """Return the values of each regime less its level: its median, or a line through many nights."""
    edges = [0, *cuts, len(values)]
    return [_centred(values[begin:end]) for begin, end in pairwise(edges)]


def _centred(values: Floats) -> Floats:
    if len(values) < TREND_NIGHTS:
        return values - median(values) if len(values) else values
    nights = np.arange(len(values)) - (len(values) - 1) / 2
    slope = float((nights * values).sum() / (nights**2).sum())
    rest: Floats = values - slope * nights
    return rest - median(rest)


def correlation(parts: Sequence[Floats]) -> float:
    """Return the lag-1 autocorrelation over all regimes, corrected for its bias; NaN for too few nights.

    The expected estimate of n nights is rho - (1 + 4 rho) / n for each regime of unknown level (Kendall, 1954).
    """
    long = [part for part in parts if len(part) >= 3]
    n = sum(map(len, long))
    squares = sum(float((part**2).sum()) for part in long)
    if n < LEAST_NIGHTS or squares <= 0:
        return math.nan
    products = sum(float((part[1:] * part[:-1]).sum()) for part in long)
    lost = len(long) / n
    return (products / squares + lost) / max(1 - 4 * lost, 0.5)


def noise_of(values: Floats, cuts: Sequence[int], recall: int) -> Noise:
    """Return the noise of the last `recall` values around the levels between `cuts`.

    The spread is that after the last change; of all regimes while there are fewer than LEAST_NIGHTS since.
    """
    begin = max(0, len(values) - recall)
    parts = residuals(values[begin:], [cut - begin for cut in cuts if cut > begin])
    together = np.concatenate(parts) if parts else values
    own = parts[-1] if parts and len(parts[-1]) >= LEAST_NIGHTS else together
    alike = alike_from(own)
    sigma = max(robust_sigma(own), float(own[alike:].std(ddof=1))) if alike else robust_sigma(own)
    return Noise(sigma, correlation(parts), len(together))
