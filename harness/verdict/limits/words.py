"""Sentences of verdicts on limits."""

from __future__ import annotations

import math

from harness.metrics import PER, find
from harness.scenario.limits import Limit
from harness.units import exact_bytes, format_bytes
from harness.verdict.limits.held import Held, Outcome

MEASURE_LONGER = "; measure for longer to be sure"


def subject(limit: Limit) -> str:
    """Return the bounded quantity as it was written."""
    named = f"{limit.class_name}.{limit.metric}" if limit.class_name else limit.metric
    if limit.statistic and limit.statistic.startswith(PER):
        return f"{named} {limit.statistic.removeprefix('most ')}"
    return f"{named} {limit.statistic}" if limit.statistic else named


def on_value(limit: Limit, held: Held, n: int, why: str | None, *, strict: bool) -> str:
    """Return the value with its certainty, its interval and the bound. `why`: the reason if only a bound is known."""
    unit = unit_of(limit)
    bound = f"limit {as_given(held.bound, unit)}"
    if math.isnan(held.value):
        end = value_or_end(held.value, held.low, held.high, unit)
        known = f"{subject(limit)} is known only as {end} ({n:,} observations, {bound})"
        if held.outcome is not Outcome.CANNOT_TELL and not strict:
            return f"{known}."
        return f"{known}: {why or 'more observations, or a longer time-out, would tell'}."
    said = f"{subject(limit)} is {apart(held.value, held.bound, unit)}"
    if not held.certainty:
        return f"{said} ({bound})."
    unsure = strict and held.certainty != "sure"
    counted = limit.statistic is not None and limit.statistic.startswith(PER)
    ends = "less time was measured" if counted else interval(held, unit)
    text = f"{said} ({'not sure' if unsure else held.certainty}; {ends}, {bound})"
    return f"{text}{MEASURE_LONGER if unsure else ''}."


def value_or_end(value: float, low: float, high: float, unit: str) -> str:
    """Return a value, or the end that a censored one is known to be beyond."""
    if not math.isnan(value):
        return shown(value, unit)
    above = math.isfinite(low) and (low > 0 or not math.isfinite(high))
    return f"at least {shown(low, unit)}" if above else f"at most {shown(high, unit)}"


def interval(held: Held, unit: str) -> str:
    """Return the 95 % interval in words, as far as it is known."""
    low, high = math.isfinite(held.low), math.isfinite(held.high)
    if low and high:
        first = shown(held.low, unit).removesuffix("" if unit == "bytes" else f" {unit}")
        return f"95 % interval {first} to {shown(held.high, unit)}"
    if low or high:
        return f"95 % interval {'from' if low else 'up to'} {shown(held.low if low else held.high, unit)}"
    return "too few observations for an interval"


def shown(number: float, unit: str) -> str:
    """Return a number with four significant digits and its unit."""
    if unit == "bytes":
        return format_bytes(number)
    if unit == "%":
        number *= 100
    text = f"{float(f'{number:.4g}'):,.10g}"
    return f"{text} {unit}".rstrip()


def as_given(number: float, unit: str) -> str:
    """Return a bound with all of its digits."""
    if unit == "bytes":
        return exact_bytes(number)
    return f"{number * (100 if unit == '%' else 1):,.10g} {unit}".rstrip()


def apart(number: float, bound: float, unit: str) -> str:
    """Return a number with as many digits, four or more, as tell it from a bound."""
    if unit == "bytes":
        text = format_bytes(number)
        return text if number == bound or text != format_bytes(bound) else f"{number:,.0f} bytes"
    if number == bound:
        return shown(number, unit)
    scale = 100 if unit == "%" else 1
    texts = (f"{float(f'{number * scale:.{digits}g}'):,.10g} {unit}".rstrip() for digits in range(4, 11))
    return next((text for text in texts if text != as_given(bound, unit)), shown(number, unit))


def factor(number: float) -> str:
    """Return a ratio with two decimals, or three significant digits."""
    return f"{number:.2f}" if 0.1 <= number < 100 else f"{number:.3g}"


def unit_of(limit: Limit) -> str:
    """Return the unit in which numbers of a limit are shown; "" for counts and ratios."""
    metric = find(limit.metric)
    unit = metric.unit if metric else ""
    return {"share": "%", "count": "", "ratio": ""}.get(unit, unit)
