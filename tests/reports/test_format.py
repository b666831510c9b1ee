"""Numbers as people read them."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reports.format import (
    UNKNOWN,
    amount,
    count,
    dotted,
    estimate,
    grouped,
    interval,
    joined,
    seconds,
    shortened,
    shortened_inside,
)


@pytest.mark.parametrize(
    ("value", "low", "high", "shown"),
    [
        (81.23456, 79.0, 84.0, "81.2"),
        (81.23456, 60.0, 110.0, "81"),
        (12345.678, 12000.0, 12900.0, "12 350"),
        (12345.678, math.nan, math.nan, "12 346"),
        (0.0123456, math.nan, math.nan, "0.0123"),
        (5.0, 5.0, 5.0, "5.00"),
        (0.0, math.nan, math.nan, "0"),
        (math.nan, math.nan, math.nan, UNKNOWN),
        (81.23456, -math.inf, 84.0, "81.2"),
    ],
)
def test_digits_follow_the_interval(value: float, low: float, high: float, shown: str) -> None:
    """The last digit is about a tenth of the interval; three digits without one."""
    assert amount(value, low, high).replace("\u202f", " ") == shown


@pytest.mark.parametrize(
    ("value", "show", "shown"),
    [(0.9712, "share", "97.1 %"), (0.0, "share", "0 %"), (2.5 * 2**30, "bytes", "2.50 GiB"), (512.0, "bytes", "512 B")],
)
def test_shares_and_bytes(value: float, show: str, shown: str) -> None:
    """Shares in per cent, bytes with a binary unit."""
    assert amount(value, show=show).replace("\u202f", " ") == shown


@pytest.mark.parametrize(
    ("bound", "low", "high", "shown"),
    [
        ("lower", 30_000.0, math.inf, "> 30 000"),
        ("upper", 1.0, 200.0, "< 200"),
        ("lower", -math.inf, math.inf, UNKNOWN),
        ("point", 90.0, 110.0, "100"),
    ],
)
def test_bounds_are_shown_as_bounds(bound: str, low: float, high: float, shown: str) -> None:
    """A bound never looks like a number."""
    row: dict[str, object] = {
        "value": 100.0 if bound == "point" else math.nan,
        "low": low,
        "high": high,
        "bound": bound,
    }
    assert estimate(row).replace("\u202f", " ") == shown
    assert bool(interval(row)) is (bound == "point")


def test_an_absent_row_is_a_dash() -> None:
    """Unknown is never zero."""
    assert estimate(None) == UNKNOWN
    assert interval(None) == ""
    assert seconds(None) == UNKNOWN


def test_an_open_interval_says_so() -> None:
    """An end that the data do not bound is infinite."""
    row: dict[str, object] = {"value": 1.0, "low": 0.5, "high": math.inf, "bound": "point"}
    assert interval(row) == "0.500 to ∞"


@pytest.mark.parametrize(
    ("made", "text"),
    [
        (joined([]), ""),
        (joined(["a"]), "a"),
        (joined(["a", "b", "c"]), "a, b and c"),
        (dotted(["a", "", "c"]), "a · c"),
        (shortened("abcdef", 6), "abcdef"),
        (shortened("abcdefg", 6), "abcde…"),
        (shortened_inside("abcdef", 6), "abcdef"),
        (shortened_inside("abcdefg", 6), "abc…efg"),
    ],
)
def test_texts_are_joined_and_cut(made: str, text: str) -> None:
    """Lists read as sentences do, and a text that is cut says so."""
    assert made == text


def test_counts_agree_in_number() -> None:
    """One request, two requests."""
    assert (count(1, "request"), count(2, "request")) == ("1 request", "2 requests")


@given(st.integers(-(10**12), 10**12))
def test_grouping_keeps_the_digits(number: int) -> None:
    """Thin spaces are all that is added."""
    assert grouped(str(number)).replace("\u202f", "") == str(number)


@given(st.floats(-1e12, 1e12), st.floats(0, 1e9))
def test_shown_values_are_near_the_truth(value: float, half: float) -> None:
    """Rounding changes less than the interval is wide, or than one in a hundred."""
    shown = float(amount(value, value - half, value + half).replace("\u202f", ""))
    assert abs(shown - value) <= max(0.11 * half, 0.006 * abs(value), 1e-6)


@given(st.floats(1e-300, 1e-4), st.floats(0, 0.5))
def test_nothing_known_is_shown_as_zero(value: float, half: float) -> None:
    """However small: a divergence of 3e-8 is not 0.000000."""
    low, high = value * (1 - half), value * (1 + half)
    assert abs(float(amount(value, low, high)) - value) <= 0.06 * value
    assert abs(float(amount(value)) - value) <= 0.06 * value
