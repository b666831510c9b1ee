"""Numbers as people read them."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reports.format import (
    UNKNOWN,
    amount,
    beyond,
    clock,
    count,
    digits,
    dotted,
    estimate,
    grouped,
    interval,
    joined,
    seconds,
    shortened,
    shortened_inside,
    wide,
)

UNITS = {"%": 0.01, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}


@pytest.mark.parametrize(
    ("value", "low", "high", "shown"),
    [
        (81.23456, 79.0, 84.0, "81.2"),
        (81.23456, 60.0, 110.0, "81.2"),
        (25.83, 5.0, 90.0, "25.8"),
        (12345.678, 12000.0, 12900.0, "12 346"),
        (400.1234, 399.2, 401.1, "400.1"),
        (12345.678, math.nan, math.nan, "12 346"),
        (0.0123456, math.nan, math.nan, "0.0123"),
        (5.0, 5.0, 5.0, "5.00"),
        (0.0, math.nan, math.nan, "0"),
        (math.nan, math.nan, math.nan, UNKNOWN),
        (81.23456, -math.inf, 84.0, "81.2"),
    ],
)
def test_digits_follow_the_interval(value: float, low: float, high: float, shown: str) -> None:
    """Three digits at least; more where the interval is narrow, to about a tenth of it."""
    assert amount(value, low, high).replace("\u202f", " ") == shown


@pytest.mark.parametrize(
    ("value", "show", "shown"),
    [(0.9712, "share", "97.1 %"), (0.0, "share", "0 %"), (2.5 * 2**30, "bytes", "2.50 GiB"), (512.0, "bytes", "512 B")],
)
def test_shares_and_bytes(value: float, show: str, shown: str) -> None:
    """Shares in per cent, bytes with a binary unit."""
    assert amount(value, show=show).replace("\u202f", " ") == shown


@pytest.mark.parametrize(
    ("value", "bound", "low", "high", "shown"),
    [
        (100.0, "point", 90.0, 110.0, "100"),
        (100.0, "point", 70.0, 125.0, "100~"),
        (100.0, "point", math.nan, math.nan, "100"),
        (53.4, "lower", 51.0, math.inf, "53.4~"),
        (53.4, "lower", math.nan, math.inf, "53.4~"),
        (53.4, "upper", math.nan, 60.0, "53.4~"),
        (math.nan, "lower", 30_000.0, math.inf, "> 30 000"),
        (math.nan, "upper", math.nan, 200.0, "< 200"),
        (math.nan, "lower", math.nan, math.inf, UNKNOWN),
    ],
)
def test_a_value_is_shown_where_there_is_one(value: float, bound: str, low: float, high: float, shown: str) -> None:
    """A value that is known roughly is marked; a bound stands only where there is no value."""
    row: dict[str, object] = {"value": value, "low": low, "high": high, "bound": bound}
    assert estimate(row).replace("\u202f", " ") == shown


@given(st.floats(1e-3, 1e6), st.floats(1e-3, 1e6), st.floats(0.01, 2), st.floats(0.01, 2))
def test_the_larger_time_is_never_printed_as_the_smaller(one: float, other: float, near: float, wide: float) -> None:
    """Whatever their intervals."""
    less, more = sorted((one, other))
    shown = [amount(less, less * (1 - near), less * (1 + near), "time"), amount(more, 0, more * (1 + wide), "time")]
    first, second = (float(text.replace("\u202f", "")) for text in shown)
    assert first <= second


@given(st.floats(1e-3, 1e9), st.floats(0, 10), st.sampled_from(("number", "time", "share", "bytes")))
def test_three_digits_are_always_there(value: float, width: float, show: str) -> None:
    """However wide the interval, a printed number is within half a per cent of the value."""
    text = amount(value, value * max(0.0, 1 - width), value * (1 + width), show)
    digits = text.replace("\u202f", " ").rstrip(" %KMGiBT").replace(" ", "")
    scale = next((scale for unit, scale in UNITS.items() if text.endswith(unit)), 1)
    assert float(digits) * scale == pytest.approx(value, rel=0.0051)


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


def test_times_are_written_like_a_clock() -> None:
    """Minutes and seconds, from an hour on hours too."""
    assert [clock(seconds) for seconds in (0.2, 59.6, 3599, 11232)] == ["0:00", "1:00", "59:59", "3:07:12"]


def test_an_interval_is_wide_if_it_is_open_or_larger_than_half_the_value() -> None:
    """A share has an absolute width; p95 of nineteen requests has none of them beyond it."""
    inf, nan = math.inf, math.nan
    assert not wide(100, 90, 120)
    assert wide(100, 70, 130)
    assert wide(100, 90, inf)
    assert wide(100, nan, nan)
    assert not wide(0.0, 0.0, 0.02, "share")
    assert wide(0.0, 0.0, 0.2, "share")
    for n, few in ((19, True), (20, False)):
        row = {"statistic": "p95", "n": n, "value": 100.0, "low": 99.0, "high": 101.0, "bound": "point"}
        assert wide(100, 99, 101, beyond=beyond(row)) is few
        assert estimate(row).endswith("~") is few
    assert not estimate(row | {"statistic": "max", "low": nan, "bound": "upper"}).endswith("~")


@pytest.mark.parametrize(
    ("value", "number", "shown"),
    [(123.4, 2, "120"), (99.6, 2, "100"), (12_345.6, 4, "12 350"), (5.5, 4, "5.5"), (0.0316, 2, "0.032")],
)
def test_a_large_number_has_no_exponent(value: float, number: int, shown: str) -> None:
    """Nobody reads 1.2e+02 as 120."""
    assert digits(value, number).replace("\u202f", " ") == shown
