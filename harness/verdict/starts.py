"""Judge whether starts of an engine agree, and whether a window ends within a burst."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from harness.analysis.columns import NS_PER_S
from harness.analysis.reading import Reading
from harness.analysis.repetitions import Spread
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
        yield Reason("burst_cut", Level.VALID, sentence, "Set `duration` to a multiple of `every`.")


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
        f"Variation between {spread.starts} starts exceeds the noise within one: {statistic} differs by {between:.1%} "
        f"between starts, {within:.1%} within one"
    ) + (f"; so do {others} more." if others else ".")
    advice = "Use the interval over the starts. Raise `repetitions`; longer trials do not help."
    metrics = tuple(dict.fromkeys(name.split()[0] for name in worst))
    size = thresholds.START_SPREAD.times(spread.ratio)
    return [Reason("hysteresis", Level.WARN, sentence, advice, metrics, (), size)]
