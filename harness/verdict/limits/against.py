"""Limits against a variant: `ttft_ms p95 <= 1.1 * base`.

Variants of one run send the same requests, so their ratio is taken request by request; over repetitions from three on.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from harness.analysis.distributions import Observations
from harness.analysis.paired import OfRequests, resampled_ratios
from harness.analysis.stats import MIN_PAIRS, Floats, Measured, Ratio, ratio
from harness.analysis.summary import KEYS, Measures
from harness.scenario.limits import Limit
from harness.verdict.limits.held import Held
from harness.verdict.limits.words import MEASURE_LONGER, factor, subject

Keys = tuple[str, ...]
Row = Mapping[Any, Any]
_BLOCK = re.compile(r"engines\.[0-9]+\.")  # before the variant, where blocks would have equal names
_VARIANT = KEYS.index("variant")
_STARTS = ("", "one start", "two starts")


def base_keys(keys: Keys, base: str) -> Keys:
    """Return the keys of the row that a limit of the row with these `keys` refers to."""
    block = _BLOCK.match(keys[_VARIANT])
    return (*keys[:_VARIANT], (block[0] if block else "") + base, *keys[_VARIANT + 1 :])


def ratio_to(
    name: str,
    limit: Limit,
    rows: Sequence[Row],
    repetitions: Sequence[tuple[float, float]],
    measures: Sequence[tuple[Measures, Measures]],
) -> Ratio:
    """Return a metric over that of the base.

    Args:
        name: Registered name of the metric.
        rows: The row of the summary, and the base's.
        repetitions: Both values of each repetition.
        measures: What both trials of each repetition measured.
    """
    if any(math.isnan(row["value"]) for row in rows):
        return _between_bounds(*rows)
    if rows[0]["value"] == 0 < rows[1]["value"]:
        return _of_nothing(*rows)
    numbers = [Measured(float(row["value"]), float(row["low"]), float(row["high"])) for row in rows]
    several = len(repetitions) >= MIN_PAIRS or limit.statistic is None
    resampled = None if several else resampled_relative(name, str(limit.statistic), measures)
    return ratio(numbers[0], numbers[1], repetitions, resampled)


def _between_bounds(own: Row, base: Row) -> Ratio:
    """Return the ends between which the ratio lies if a value is only known to be beyond a bound."""
    (own_low, own_high), (base_low, base_high) = (_ends(row) for row in (own, base))
    low = own_low / base_high if math.isfinite(base_high) and base_high > 0 else 0.0
    return Ratio(math.nan, low, own_high / base_low if base_low > 0 else math.inf, "only bounds are known")


def _ends(row: Row) -> tuple[float, float]:
    low, high = (row["low"], row["high"]) if math.isnan(row["value"]) else (row["value"], row["value"])
    return (float(low) if low > 0 else 0.0), (float(high) if not math.isnan(high) else math.inf)


def _of_nothing(own: Row, base: Row) -> Ratio:
    """Return the ratio of a number that is 0, which has no logarithm: 0, and at most what both intervals leave."""
    high, least = float(own["high"]), float(base["low"])
    if not (least > 0 and math.isfinite(high)):
        return Ratio(0.0, math.nan, math.nan, "no interval: one of the two has none")
    return Ratio(0.0, 0.0, high / least, "from the intervals of both")


def resampled_relative(name: str, statistic: str, measures: Sequence[tuple[Measures, Measures]]) -> Floats:
    """Return the ratio of a statistic of both trials in resamples of their requests; see `analysis.paired`."""
    pairs = [(of_requests(own, name), of_requests(base, name)) for own, base in measures]
    known = [(own, base) for own, base in pairs if own is not None and base is not None]
    return resampled_ratios(known, statistic)


def of_requests(one: Measures, name: str) -> OfRequests | None:
    """Return the observations of a metric by request; None for gaps that are too many to keep."""
    observed = one.distributions.get(name)
    if not isinstance(observed, Observations) or observed.rows is None or one.requests is None:
        return None
    requests = one.requests[observed.rows]
    if observed.clusters is not None:
        requests = np.repeat(requests, observed.clusters)
    return OfRequests(requests, observed.values)


def in_words(limit: Limit, value: str, held: Held, starts: int, *, strict: bool) -> str:
    """Return the value, its ratio to the base with its interval, and the bound. `value` has its unit."""
    ratio_text = f"{factor(held.value)} * {limit.base}"
    if math.isfinite(held.low) and math.isfinite(held.high):
        ratio_text += f" [{factor(held.low)}, {factor(held.high)}]"
    if math.isnan(held.value):
        ratio_text = _between(held, str(limit.base))
    unsure = strict and held.certainty == "likely"
    word = "not sure" if unsure else held.certainty
    bound = f"{limit.value:.2f}" if round(limit.value, 2) == limit.value else f"{limit.value:.10g}"
    text = f"{subject(limit)} is {value}, {ratio_text}, limit {bound} * {limit.base}"
    text += f" ({word})" if word else ""
    text += f"; {_STARTS[starts]} each: a restart may differ" if 0 < starts < len(_STARTS) else ""
    return f"{text}{MEASURE_LONGER if unsure else ''}."


def _between(held: Held, base: str) -> str:
    """Return the ends of a ratio of which only bounds are known."""
    if math.isfinite(held.high):
        return f"between {factor(held.low)} and {factor(held.high)} * {base}"
    return f"at least {factor(held.low)} * {base}" if held.low > 0 else f"of unknown ratio to {base}"
