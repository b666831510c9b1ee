"""Judge whether a trial has enough independent samples, and whether its starts agree."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from harness.analysis.columns import NS_PER_S
from harness.analysis.queue import FEW_STATES
from harness.analysis.reading import Reading
from harness.analysis.repetitions import Spread
from harness.analysis.sample_size import HEADLINE, METRICS, label, limited
from harness.records import Loop
from harness.verdict import thresholds
from harness.verdict.reason import Level, Reason


def burst_reasons(reading: Reading) -> Iterator[Reason]:
    """Whether the window ends within a burst, which is then not among those that were taken."""
    spans, end_s = reading.trial.bursts, reading.window.end_ns / NS_PER_S
    if spans is None or not spans.every_s or reading.trial.status != "complete":
        return
    since_s = (end_s - spans.first_s) % spans.every_s
    if end_s > spans.first_s and 0 < since_s < spans.length_s:
        sentence = f"The window ends {since_s:g} s into a burst of {spans.length_s:g} s, which is left out."
        yield Reason("burst_cut", Level.WARN, sentence, "Set `duration` to a multiple of `every`.")


def too_short(reading: Reading) -> Iterator[Reason]:
    """A window in which the queue went through too few independent states for intervals of the latencies."""
    guard = reading.guard
    if not guard.applied:
        return
    times = FEW_STATES / guard.states
    sentence = (
        f"Requests queued, and their number in flight went through only about {guard.states:.0f} independent states in "
        f"{reading.window.seconds:.0f} s: the latencies are worth no more than so many requests."
    )
    advice = f"Measure about {times:.1f} times as long ({times * reading.window.seconds:.0f} s), or offer less."
    yield Reason("window_too_short", Level.WARN, sentence, advice)


def hysteresis(spread: Spread) -> bool:
    """Whether starts differ more than their requests explain, and enough to matter."""
    matters = spread.between > thresholds.LEAST_START_SPREAD.value * abs(spread.value)
    return matters and thresholds.START_SPREAD.level(spread.ratio) is not Level.VALID


def spread_fact(spread: Spread) -> dict[str, Any]:
    """Return a spread as JSON-able data; `ratio` is None where it is infinite."""
    ratio = spread.ratio if math.isfinite(spread.ratio) else None
    found = {"starts": spread.starts, "value": spread.value, "between": spread.between, "within": spread.within}
    return found | {"ratio": ratio, "hysteresis": hysteresis(spread)}


def differing(found: dict[str, Spread]) -> list[Reason]:
    """The warning about starts that differ; it stands with each of them."""
    worst = {statistic: spread for statistic, spread in found.items() if hysteresis(spread)}
    if not worst:
        return []
    statistic, spread = max(worst.items(), key=lambda one: one[1].ratio)
    others = len(worst) - 1
    between, within = (part / abs(spread.value) for part in (spread.between, spread.within))
    sentence = (
        f"The {spread.starts} starts differ by more than their requests explain: {statistic} varies by {between:.1%} "
        f"between them and by {within:.1%} within one"
    ) + (f"; so do {others} more." if others else ".")
    advice = "Believe the interval over the starts, and repeat more (`repetitions`) rather than measure for longer."
    return [Reason("hysteresis", Level.WARN, sentence, advice)]


def too_few(reading: Reading, sizes: dict[str, dict[str, Any]]) -> Iterator[Reason]:
    """A warning for each level that is a bound and was asked for: p95, which every report leads with, and those that a
    limit names. Never invalid: a bound is a true statement.
    """
    asked = {f"{name} {label(p)}" for name, p in limited(reading.trial.limits)}
    asked |= {f"{name} {label(HEADLINE)}" for name in METRICS}
    told = {statistic: size for statistic, size in sizes.items() if statistic in asked}
    for p in sorted({size["level"] for size in told.values()}):
        of_level = {statistic.split()[0]: size for statistic, size in told.items() if size["level"] == p}
        worst = min(of_level.values(), key=lambda size: (size["have"], size["n"]))
        verb = "is given as a bound"
        sentence = (
            f"{label(p)} of {' and '.join(of_level)} {verb}: it needs {worst['needed']} independent requests, "
            f"and these {worst['n']} are worth {worst['have']:.0f}."
        )
        advice = more_of(reading, worst["n"], worst["times_longer"])
        if alone(reading) and worst["have"] < thresholds.DEPENDENT.value * worst["n"]:
            advice = (
                f"Nobody queues behind one user: free the machine of other work. If that was all, {lowered(advice)}"
            )
        yield Reason("few_samples", Level.WARN, sentence, advice)


def alone(reading: Reading) -> bool:
    """Whether one user at a time was all there was: what then depends on each other does so by the machine."""
    return reading.trial.loop == Loop.CLOSED and reading.frame["user"].nunique() <= 1


def lowered(sentence: str) -> str:
    """A sentence in the middle of another."""
    return sentence[:1].lower() + sentence[1:]


def more_of(reading: Reading, n: int, times: float) -> str:
    """How to measure so many times as much: loads that end with a number of requests have no time to prolong, and
    more time does not make a spike larger.
    """
    trial = reading.trial
    if trial.bursts is not None and trial.bursts.every_s is None:
        return f"Repeat the spike (`repetitions`), or measure with about {math.ceil(n * times)} requests."
    if trial.window is None or trial.window.end_ns is None:
        return f"Measure with about {math.ceil(n * times)} requests."
    return f"Measure about {times:.1f} times as long ({shown_time(times * reading.window.seconds)})."


def shown_time(seconds: float) -> str:
    """Return a time for a sentence."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 2 * 3600 else f"{seconds / 3600:.1f} h"
