"""Quantities with units."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.units import (
    exact_bytes,
    format_duration,
    format_duration_ms,
    parse_bytes,
    parse_duration_ms,
    parse_duration_s,
    parse_share,
)

FINITE = st.one_of(st.just(0.0), st.floats(min_value=1e-9, max_value=1e9, allow_nan=False))


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        *(("30s", 30.0), ("500ms", 0.5), ("0.1s", 0.1), ("2m", 120.0), ("1.5h", 5400.0), ("1d", 86400.0)),
        *(("3 us", 3e-6), ("1m30s", 90.0), ("1h30m", 5400.0), ("1s500ms", 1.5)),
    ],
)
def test_durations_are_read_exactly(text: str, seconds: float) -> None:
    """A duration is the decimal number that was written, not a nearby one."""
    assert parse_duration_s(text) == seconds


@pytest.mark.parametrize(("text", "size"), [("24GiB", 24 * 2**30), ("24GB", 24 * 10**9), ("1.5kB", 1500), ("7B", 7)])
def test_sizes_tell_powers_of_two_from_powers_of_ten(text: str, size: int) -> None:
    """GiB is 2^30 bytes and GB is 10^9."""
    assert parse_bytes(text) == size


@pytest.mark.parametrize(
    ("size", "text"),
    [
        *((16 * 10**9, "16 GB"), (2**31, "2 GiB"), (20_000 * 2**20, "20000 MiB"), (1.5e9, "1.5 GB"), (7, "7 B")),
        *((0, "0 B"), (17_179_869_185, "17179869185 B")),
    ],
)
def test_an_exact_size_keeps_all_digits(size: float, text: str) -> None:
    """In the unit that needs the fewest, so a size of powers of ten does not become 14.9 GiB."""
    assert exact_bytes(size) == text
    assert parse_bytes(text) == size


def test_shares_are_percentages() -> None:
    """A share is written in percent."""
    assert parse_share("30%") == 0.3


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (30, "30 has no unit; write `30s` or `30ms`"),
        ("30", "30 has no unit; write `30s` or `30ms`"),
        (1.5, "1.5 has no unit; write `1.5s` or `1.5ms`"),
        ("30sec", "'30sec' has the unknown unit `sec`; did you mean `30s`? known are us, ms, s, m, h, d"),
        ("30M", "'30M' has the unknown unit `M`; did you mean `30m`? known are us, ms, s, m, h, d"),
        ("-3s", "-3s is negative; a time cannot be"),
        ("soon", "'soon' is not a time; write a number and its unit, such as `30s`"),
        ("30s1m", "'30s1m' is not a time; write a number and its unit, such as `30s`"),
        ("", "'' is not a time; write a number and its unit, such as `30s`"),
        ("12:30", "'12:30' is not a time; write a number and its unit, such as `30s`"),
        (True, "a time with its unit is needed, such as `30s`"),
        (None, "a time with its unit is needed, such as `30s`"),
        ([1], "a time with its unit is needed, such as `30s`"),
    ],
)
def test_wrong_durations_lead_to_the_fix(value: object, message: str) -> None:
    """Every refusal names the value and what to write instead."""
    with pytest.raises(ValueError) as refusal:  # noqa: PT011
        parse_duration_s(value)
    assert str(refusal.value) == message


def test_a_bare_size_shows_its_two_likely_meanings() -> None:
    """A size without a unit could be either of the common ones."""
    with pytest.raises(ValueError, match="24 has no unit; write `24GiB` or `24MiB`"):
        parse_bytes(24)


def test_a_bare_share_shows_its_two_likely_meanings() -> None:
    """0.3 may mean 30 percent or 0.3 percent."""
    with pytest.raises(ValueError, match=r"0.3 has no unit; write `30%` or `0.3%`"):
        parse_share(0.3)


@given(FINITE)
def test_durations_survive_being_written_down(seconds: float) -> None:
    """parse_duration_s reads the output of format_duration as the same number."""
    assert parse_duration_s(format_duration(seconds)) == seconds


@given(st.integers(0, 10**9))
def test_whole_milliseconds_survive_exactly(milliseconds: int) -> None:
    """Milliseconds come back as the very same number."""
    assert parse_duration_ms(format_duration_ms(float(milliseconds))) == milliseconds


@given(st.one_of(st.text(), st.integers(), FINITE, st.none(), st.booleans(), st.lists(st.integers())))
def test_anything_is_either_a_duration_or_refused_in_a_sentence(value: object) -> None:
    """No input raises anything but ValueError, and a duration is never negative."""
    with suppress(ValueError):
        assert parse_duration_s(value) >= 0
