"""Noisy weeks: stretches of nights that differ far more from each other than those before; pure."""

from __future__ import annotations

import math

import numpy as np

from harness.analysis.stats import Floats
from harness.history.detector.noise import LEAST_NIGHTS, median, residuals, robust_sigma, step_sigma, without_spikes

NIGHTS, BASE = 7, 50
CAP, SUM, SIDE = 16.0, 32.0, 9.0
"""Squares of a night, of a week and of its weaker side, in variances of the nights before."""
STEP_CAP, STEP_SUM = 9.0, 27.0
"""The same for differences between neighbours: a single odd night has two large ones, which are not enough."""
FAR, LEAST_FAR = 2.0, 3
"""Standard deviations of a night that lies far off; so many of a week must."""
RECENT = 45


def bursts(values: Floats) -> list[tuple[int, int]]:
    """Return the first and last night of each noisy stretch among the last RECENT nights, oldest first."""
    n, usual = len(values), step_sigma(values)
    if n < NIGHTS + 2 * LEAST_NIGHTS or not usual > 0:
        return []
    rough = np.minimum((np.diff(values) / usual) ** 2 / 2, STEP_CAP)
    weeks = np.convolve(rough, np.ones(NIGHTS), "valid")  # [w]: differences that end at night w + NIGHTS
    found: list[tuple[int, int]] = []
    for last in np.flatnonzero(weeks >= 0.8 * STEP_SUM) + NIGHTS:
        if last < n - RECENT or (wild := _wild(values[: last + 1])) is None:
            continue
        if found and wild[0] <= found[-1][1] + NIGHTS:
            found[-1] = found[-1][0], max(found[-1][1], wild[1])
        else:
            found.append(wild)
    return found


def _wild(values: Floats) -> tuple[int, int] | None:
    """Return the first and last of the last nights that lie far off, if these are much noisier than those before.

    They lie on both sides of the level before, and their neighbours differ: neither a step nor slow nights do so.
    """
    before, recent = values[:-NIGHTS][-BASE:], values[-NIGHTS:]
    if len(before) < 2 * LEAST_NIGHTS:
        return None
    sigma = max(robust_sigma(np.concatenate(residuals(before, ()))), float(without_spikes(before).std(ddof=1)))
    if sigma <= 0:
        return None
    sigma *= 1 + 1 / math.sqrt(len(before))  # of few nights it may be too small
    away = (recent - median(before)) / sigma
    steps = np.diff(values[-NIGHTS - 1 :]) / (sigma * math.sqrt(2))
    sides = [float((np.minimum(away**2, CAP) * (away * sign > 0)).sum()) for sign in (1, -1)]
    if min(sides) < SIDE or sum(sides) < SUM or float(np.minimum(steps**2, STEP_CAP).sum()) < STEP_SUM:
        return None
    far = np.flatnonzero(np.abs(away) > FAR) + len(values) - NIGHTS
    return (int(far[0]), int(far[-1])) if len(far) >= LEAST_FAR else None
