"""Judge the figures of quality: the word for a divergence, and what noise alone explains."""

from __future__ import annotations

import math

from harness.verdict import thresholds


def word(kl: tuple[float, float], top1: tuple[float, float]) -> str:
    """Return the grade that figures within these ends have; where they allow several, the best and the worst of them.

    A divergence that is known only from below may be infinite: what is left is the best. NaN keeps no bound.
    """
    best, worst = _grade(kl[0], top1[1]), _grade(kl[1], top1[0])
    if best == worst:
        return best
    return f"{best} at best" if math.isinf(kl[1]) else f"{best} to {worst}"


def _grade(kl: float, top1: float) -> str:
    """Return the first grade whose bounds both figures keep."""
    kept = (grade.word for grade in thresholds.GRADES if kl <= grade.kl and top1 >= grade.top1)
    return next(kept, thresholds.WORST_GRADE)


def indistinguishable(kl_mean: float, floor: float | None) -> bool:
    """Return whether a mean divergence is no more than three times that of the reference from itself."""
    return floor is not None and kl_mean <= thresholds.NOISE_FLOORS.value * floor
