"""Steps and creeping changes of a series' level, each with its size, its interval and what it lacks; pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import pairwise

import numpy as np

from harness.analysis.stats import Floats
from harness.comparison.change import Change
from harness.history.detector.bursts import bursts
from harness.history.detector.changes import LEAST, P, change_points, p_of, placed
from harness.history.detector.nights import Nights
from harness.history.detector.noise import (
    LEAST_NIGHTS,
    Noise,
    alike_from,
    median,
    noise_of,
    robust_sigma,
    step_sigma,
    without_spikes,
)
from harness.scenario.margins import Scale

BOTH_ENDS = 0.025
"""Chance beyond each end of a change's interval: 95 % lie within."""
NEAR = 2
"""Nights by which two changes may differ and have one cause."""
IN_NOISE, LITTLE = "in noisy nights", "little by little"
NEEDS_CONFIRMATION = "needs a confirmation: nights follow each other"
ROUGH, ROUGH_CAP, ROUGH_NIGHTS = 3.0, 9.0, 10
"""Mean square of the differences between neighbours around a change, in that of the nights before, from which on the
nights are noisy; the most that one difference counts; the nights on both sides."""
LEAST_RAMP = 3
"""Nights on each side below which a line and a step look alike."""
UNEQUAL = 4.0
"""Ratio of variances from which on they are not pooled."""
STEP_LIKELIHOOD = 12.0
"""Twice the logarithm of the likelihood ratio from which on a change is a step and no drift."""
LEAST_DRIFT = 21
"""Nights that a drift lasts at least: a shorter one may be called a step."""
BENT_LIKELIHOOD = 2.0
"""The same against a drift that begins within the nights, which has one more way to fit."""
LEVEL_LIKELIHOOD = 4.0
"""The same from which on the level of a few nights changed, and not their spread."""
YOUNG_SERIES = 14
"""Nights since a reset before which no step is told: their noise is unknown."""
USUAL_SIGMAS = 2.5
"""Standard deviations to which nights count in full for a creeping change."""


@dataclass(frozen=True, slots=True)
class Policy:
    """Which changes are told.

    Attributes:
        p: Largest p-value, of a test that knows the autocorrelation.
        nights: Least number of nights at the new level.
        relative: Least change of a ratio.
        points: Least change of a share.
        sigmas: Least change in standard deviations of a night, in the first `young` nights.
        sigmas_later: The same afterwards: the noise has been averaged out by then.
        recall: Nights that the noise is learnt from.
        jump_sigmas, jump: A single night beyond both asks for another run at once.
        window: Nights that are averaged at the end of a creeping change; twice as many at its begin.
        whole, spike_filter, correlation, checks: Switches, for tables that show what each of them is good for. Without
            `checks` every change point is told.
    """

    p: float = P
    nights: int = LEAST
    relative: float = 0.02
    points: float = 0.01
    sigmas: float = 2.0
    sigmas_later: float = 1.0
    young: int = 10
    recall: int = 100
    jump_sigmas: float = 5.0
    jump: float = 0.05
    window: int = 7
    whole: bool = False
    spike_filter: bool = True
    correlation: bool = True
    checks: bool = True

    def least(self, scale: Scale) -> float:
        """Return the least change on the scale of the values."""
        return self.points if scale is Scale.DIFFERENCE else math.log1p(self.relative)


POLICY = Policy()


class Shape(StrEnum):
    """Course of a change: from one night to the next, little by little, or so far a single night."""

    STEP = "step"
    CREEP = "creep"
    JUMP = "jump"


@dataclass(frozen=True, slots=True)
class Step:
    """Change of the level.

    Attributes:
        night: First night of the new level; for a creeping change the night it is measured from.
        first, last: Nights at which a step can lie, with 95 %.
        age: Nights at the new level.
        p: p-value of the change.
        lacks: What keeps it from being told; "" if nothing does.
    """

    night: int
    first: int
    last: int
    age: int
    change: Change
    p: float
    shape: Shape = Shape.STEP
    lacks: str = ""


@dataclass(frozen=True, slots=True)
class Course:
    """Course of a series: its changes and its noise.

    Attributes:
        steps: All steps, oldest first, those that lack something included.
        creep: Creeping change up to the last night, None if there is none.
        jump: Change of the last night alone, None if it is not large.
        noise: Noise after the last change.
        bursts: First and last night of each noisy stretch since the last reset.
    """

    nights: Nights
    steps: tuple[Step, ...]
    noise: Noise
    creep: Step | None = None
    jump: Step | None = None
    bursts: tuple[tuple[int, int], ...] = ()

    @property
    def told(self) -> list[Step]:
        """Steps that lack nothing."""
        return [step for step in self.steps if not step.lacks]


def course_of(
    nights: Nights, policy: Policy = POLICY, releases: Sequence[int] = (), known: Sequence[int] = ()
) -> Course:
    """Return the course of a series.

    Args:
        releases: Nights at which a release was measured: creeping changes count from the last one.
        known: Nights of changes that somebody acknowledged: creeping changes count from them, too.
    """
    steps: list[Step] = []
    edges = [0, *nights.resets, len(nights.values)]
    cleaned, noisy = nights.values, list[tuple[int, int]]()
    for begin, end in pairwise(edges):
        cleaned = without_spikes(nights.values[begin:end]) if policy.spike_filter else nights.values[begin:end]
        points = change_points(cleaned, policy.p, policy.recall, policy.nights, whole=policy.whole)
        cuts = [one.index for one in points]
        noisy = bursts(nights.values[begin:end]) if policy.checks else []
        found = steps_of(cleaned, cuts, nights.scale, policy, nights.values[begin:end])
        steps += [_shifted(_held(one, noisy), begin) for one in found]
    begin = nights.start
    cuts = [step.night - begin for step in steps if step.night > begin]
    noise = noise_of(cleaned, cuts, policy.recall)
    marks = [one - begin for one in (*releases, *known)]

    def creep_until(last: int, told: Sequence[int]) -> Step | None:
        before = [one for one in marks if one < last]
        return creep_of(cleaned[:last], told, before, noise, nights.scale, policy) if policy.checks else None

    steps, creep = _with_creep(steps, cleaned, begin, creep_until)
    jump = jump_of(nights, cuts, noise, policy) if policy.checks else None
    return Course(
        nights,
        tuple(_gated(step, noise, policy) if step.night > begin else step for step in steps),
        noise,
        None if creep is None else _gated(_shifted(creep, begin), noise, policy),
        None if jump is None else _shifted(jump, begin),
        tuple((first + begin, last + begin) for first, last in noisy),
    )


def _with_creep(
    steps: Sequence[Step], values: Floats, begin: int, creep_until: Callable[[int, Sequence[int]], Step | None]
) -> tuple[list[Step], Step | None]:
    """Return the steps, and the creeping change up to the last night.

    The last step is a part of a creeping change, if the level crept in its direction before it or afterwards, unless it
    is clearly none of a drift. values: those from `begin` on.
    """
    told = [step.night - begin for step in steps if step.night > begin and not step.lacks]
    creep = creep_until(len(values), told)
    last = next((one for one in reversed(steps) if one.night > begin and not one.lacks), None)
    if last is None:
        return [*steps], creep
    before = [one for one in told if one < last.night - begin]
    others = [one for one in (creep, creep_until(last.night - begin, before)) if one is not None]
    level = max(before, default=0)
    drifts = any(one.change.at * last.change.at > 0 for one in others)
    if not drifts or _over_drift(values[level:], last.night - begin - level) >= STEP_LIKELIHOOD:
        return [*steps], creep
    without = [replace(one, lacks=LITTLE) if one is last else one for one in steps]
    return without, creep_until(len(values), before)


def _gated(step: Step, noise: Noise, policy: Policy) -> Step:
    """Return a step as one that needs a confirmation if the series wanders by as much."""
    small = abs(step.change.at) < policy.jump_sigmas * noise.sigma
    gated = policy.checks and noise.dependent and small and not step.lacks
    return replace(step, lacks=NEEDS_CONFIRMATION) if gated else step


def _held(step: Step, noisy: Sequence[tuple[int, int]]) -> Step:
    """Return a step as one that is not told if it lies in noisy nights or at their end."""
    held = any(first - NEAR <= step.night <= last + NEAR for first, last in noisy)
    return replace(step, lacks=step.lacks or IN_NOISE) if held else step


def _shifted(step: Step, by: int) -> Step:
    return replace(step, night=step.night + by, first=step.first + by, last=step.last + by)


def steps_of(values: Floats, cuts: Sequence[int], scale: Scale, policy: Policy, raw: Floats) -> list[Step]:
    """Return the steps at change points of one stretch, judged. raw: the values with those that stand alone."""
    edges = [0, *cuts, len(values)]
    found = []
    for place, cut in enumerate(cuts, 1):
        begin, end = edges[place - 1], edges[place + 1]
        noise = noise_of(values[:end], cuts[:place], policy.recall)
        inflation = noise.inflation if policy.correlation else 1.0
        alike = begin + (alike_from(raw[begin:cut]) if policy.checks else 0)
        change, p = shift(values[alike:cut], values[cut:end], scale, inflation)
        first, last = placed(values[begin:end], cut - begin)
        step = Step(cut, begin + first, begin + last, end - cut, change, p)
        if policy.checks:
            why = lacks(step, values[begin:end], cut - begin, alike - begin, noise, policy)
            why = why or _rough_text(values, cut, noise)
            step = replace(step, lacks=why)
        found.append(step)
    return found


def lacks(step: Step, values: Floats, cut: int, alike: int, noise: Noise, policy: Policy) -> str:
    """Return what keeps a step from being told; "" if nothing does.

    Args:
        values: Both of its sides.
        alike: First night that is as noisy as those just before the step.
    """
    size = abs(step.change.at)
    left, right = values[alike:cut], values[cut:]
    sigmas = policy.sigmas if step.age < policy.young else policy.sigmas_later
    if noise.nights < YOUNG_SERIES:
        return "too few nights to know the noise"
    if step.p > policy.p:
        return "not certain, as nights depend on each other"
    if size < policy.least(step.change.scale):
        return "too small to matter"
    if size < sigmas * noise.sigma:
        return "within the noise"
    if step.age < policy.young and _widens(left, right):
        return IN_NOISE
    return LITTLE if _ramps(values, cut) else ""


def _rough_text(values: Floats, cut: int, noise: Noise) -> str:
    return IN_NOISE if _rough(values, cut - ROUGH_NIGHTS, cut + ROUGH_NIGHTS, noise, but=cut) else ""


def _rough(values: Floats, begin: int, end: int, noise: Noise, but: int = -1) -> bool:
    """Return whether neighbours in a range differ far more than those before it. but: a night that may differ."""
    begin = max(begin, 0)
    steps = np.diff(values[begin:end])
    if 0 <= but - begin - 1 < len(steps):
        steps = np.delete(steps, but - begin - 1)
    before = step_sigma(values[:begin]) if begin >= LEAST_NIGHTS else noise.sigma
    if len(steps) < 2 or not before > 0:
        return False
    return float(np.minimum((steps / before) ** 2 / 2, ROUGH_CAP).mean()) > ROUGH


def _widens(left: Floats, right: Floats) -> bool:
    """Return whether a wider spread explains the nights after a change about as well as another level does.

    Of normal nights, twice the logarithm of the likelihood ratio: another mean and the spread before, against the mean
    before and another spread.
    """
    variance, n = float(left.var(ddof=1)), len(right)
    if n < LEAST or not variance > 0:
        return False
    wide = float(((right - left.mean()) ** 2).mean()) / variance
    rest = float(((right - right.mean()) ** 2).sum()) / variance
    return n * math.log(max(wide, 1e-300)) + n - rest < LEVEL_LIKELIHOOD


def _ramps(values: Floats, cut: int) -> bool:
    """Return whether a drift explains two stretches about as well as a step, which may choose its night.

    It is a line through all nights, or begins within them.
    """
    if min(cut, len(values) - cut) < LEAST_RAMP:
        return False
    return _over_drift(values, cut, line=True) < STEP_LIKELIHOOD or _over_drift(values, cut) < BENT_LIKELIHOOD


def _over_drift(values: Floats, cut: int, *, line: bool = False) -> float:
    """Return twice the logarithm of the likelihood ratio of a step against the best drift.

    A drift is a line that begins on any night, at least LEAST_DRIFT before the last. line: It begins on the first.
    """
    n = len(values)
    left, right = values[:cut], values[cut:]
    step = float(((left - left.mean()) ** 2).sum() + ((right - right.mean()) ** 2).sum())
    begins = np.arange(1 if line else max(n - LEAST_DRIFT, 0) + 1)[:, None]
    rises = np.maximum(np.arange(n)[None, :] - begins, 0).astype(float)
    rises -= rises.mean(axis=1, keepdims=True)
    centred = values - values.mean()
    rest = float(((centred**2).sum() - (rises @ centred) ** 2 / (rises**2).sum(axis=1)).min())
    return n * math.log(max(rest, 1e-300) / max(step, 1e-300))


def shift(left: Floats, right: Floats, scale: Scale, inflation: float = 1.0) -> tuple[Change, float]:
    """Return the change between the means of two stretches with its standard error, and its p-value.

    Student's, with a pooled variance; Welch's where the smaller stretch is clearly the noisier one.
    """
    n, m = len(left), len(right)
    at = float(right.mean() - left.mean())
    squares = float(((left - left.mean()) ** 2).sum()), float(((right - right.mean()) ** 2).sum())
    degrees: float = max(n + m - 2, 1)
    variance, inverse = sum(squares) / degrees, 1 / n + 1 / m
    parts = [square / max(count - 1, 1) for square, count in zip(squares, (n, m), strict=True)]
    if min(n, m) >= LEAST and max(parts) > UNEQUAL * min(parts):
        welch = parts[0] / n + parts[1] / m
        if welch > variance * inverse:
            shares = (parts[0] / n) ** 2 / (n - 1) + (parts[1] / m) ** 2 / (m - 1)
            degrees, variance, inverse = welch**2 / shares, welch, 1.0
    error = math.sqrt(variance * inverse * inflation)
    change = Change(scale, at, error, error, degrees, method=f"{m} nights after, {n} before")
    return change, p_of(at, variance, inverse, degrees, inflation)


def creep_of(
    values: Floats, told: Sequence[int], marks: Sequence[int], noise: Noise, scale: Scale, policy: Policy
) -> Step | None:
    """Return the change from a reference to the last nights that no told step explains; None if there is none.

    The reference is the first nights of the level, or those around the last release or acknowledged change.
    """
    level = max(told, default=0)
    mark = max((one for one in marks if level < one < len(values)), default=level)
    before = min(policy.window, mark - level)
    reference = values[mark - before : mark - before + 2 * policy.window]
    recent = values[-policy.window :]
    if mark - before + 3 * policy.window > len(values) or not noise.sigma >= 0:
        return None
    sides = [np.clip(side, *_usual(side, max(noise.sigma, _spread(side)))) for side in (reference, recent)]
    at = float(sides[1].mean() - sides[0].mean())
    early = float(sides[1][: len(recent) // 2].mean() - sides[0].mean())
    if at == 0 or early / at < 0.5 or _rough(values, len(values) - policy.window, len(values), noise):
        return None  # a step within the last nights, or noisy ones
    parts = []
    for side in sides:
        own = float(side.var(ddof=1))
        noisier = own > noise.sigma**2
        parts.append((own / len(side), len(side) - 1) if noisier else (noise.sigma**2 / len(side), noise.nights - 1))
    inverse = sum(part for part, _ in parts)
    degrees = inverse**2 / sum(part**2 / free for part, free in parts) if inverse else float(noise.nights - 1)
    inflation = noise.inflation if policy.correlation else 1.0
    error = math.sqrt(inverse * inflation)
    change = Change(scale, at, error, error, degrees, method=f"the last {len(recent)} nights")
    p = p_of(at, 1.0, inverse, degrees, inflation)
    size = abs(change.at)
    if p > policy.p or size < max(policy.least(scale), policy.sigmas_later * noise.sigma):
        return None
    return Step(mark, mark, len(values) - 1, policy.window, change, p, Shape.CREEP)


def _spread(values: Floats) -> float:
    return robust_sigma(values - median(values))


def _usual(values: Floats, sigma: float) -> tuple[float, float]:
    """Return the range in which nights count in full: farther ones count as its ends."""
    middle = median(values)
    return middle - USUAL_SIGMAS * sigma, middle + USUAL_SIGMAS * sigma


def jump_of(nights: Nights, cuts: Sequence[int], noise: Noise, policy: Policy) -> Step | None:
    """Return the change of the last night against the level before; None if it is not beyond both bounds.

    It lacks another run of the same night until one agrees.
    """
    values = nights.values[nights.start :]
    n = len(values)
    level = values[max(cuts, default=0) : n - 1]
    if len(level) < 2 * policy.window or not math.isfinite(noise.sigma):
        return None
    middle = median(level)
    least = max(
        policy.jump_sigmas * noise.sigma, policy.jump if nights.scale is Scale.DIFFERENCE else math.log1p(policy.jump)
    )
    away = nights.last - middle
    beyond = away[np.abs(away) > least]
    if len(beyond) == 0:
        return None
    agree = abs(float(np.sign(beyond).sum())) == len(away)
    error = noise.sigma * math.sqrt(1 / len(away) + 1 / len(level))
    change = Change(nights.scale, median(away), error, error, len(level) - 1, method="the last night alone")
    wants = "another run of the same night" if len(away) < 2 else "" if agree else "runs of the same night that agree"
    return Step(n - 1, n - 1, n - 1, 1, change, math.nan, Shape.JUMP, wants)
