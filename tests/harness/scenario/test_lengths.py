"""Distributions of lengths and times."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from harness.scenario.lengths import Length, ThinkTime

LENGTH: TypeAdapter[Any] = TypeAdapter(Length)
TIME: TypeAdapter[Any] = TypeAdapter(ThinkTime)

LENGTHS = st.one_of(
    st.integers(1, 5000),
    st.builds(lambda a, b: {"dist": "uniform", "min": min(a, b), "max": max(a, b)}, *[st.integers(1, 900)] * 2),
    st.builds(lambda m, s: {"dist": "normal", "mean": m, "sd": s}, st.floats(1, 900), st.floats(0, 300)),
    st.builds(lambda m, k: {"dist": "lognormal", "median": m, "p95": m * k}, st.floats(1, 900), st.floats(1, 9)),
    st.builds(lambda m, s: {"dist": "lognormal", "mean": m, "sigma": s}, st.floats(1, 900), st.floats(0, 2)),
    st.lists(st.integers(1, 900), min_size=1, max_size=8).map(lambda values: {"dist": "empirical", "values": values}),
)


def test_a_bare_number_is_a_fixed_length() -> None:
    """`prompt_tokens: 64` is short for a fixed distribution."""
    assert LENGTH.validate_python(64) == LENGTH.validate_python({"dist": "fixed", "value": 64})


def test_a_lognormal_by_median_and_p95_has_them() -> None:
    """Half of the lengths lie below the median and 95 % below p95."""
    length = LENGTH.validate_python({"dist": "lognormal", "median": 600, "p95": 2000})
    assert (length.quantile(0.5), length.quantile(0.95)) == (600, 2000)


def test_a_lognormal_by_mean_and_sigma_has_that_mean() -> None:
    """`mean` is the mean of the lengths, `sigma` the spread of their logarithm."""
    length = LENGTH.validate_python({"dist": "lognormal", "mean": 800, "sigma": 0.5})
    assert length.expected_tokens == pytest.approx(800, rel=0.01)
    assert math.exp(length.log_mean + length.log_sd**2 / 2) == pytest.approx(800)


def test_empirical_lengths_occur_as_often_as_their_weights() -> None:
    """The quantiles follow the cumulated weights."""
    length = LENGTH.validate_python({"dist": "empirical", "values": [900, 50], "weights": [1, 3]})
    assert [length.quantile(share) for share in (0.1, 0.74, 0.76)] == [50, 50, 900]
    assert length.expected_tokens == pytest.approx(0.75 * 50 + 0.25 * 900)


@given(LENGTHS, st.floats(0.001, 0.999), st.floats(0.001, 0.999))
def test_quantiles_rise_and_stay_within_bounds(given_length: Any, a: float, b: float) -> None:
    """A larger share never gives a shorter length, and no length is below one token."""
    length = LENGTH.validate_python(given_length)
    low, high = length.quantile(min(a, b)), length.quantile(max(a, b))
    assert 1 <= low <= high
    assert length.max is None or high <= length.max


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"dist": "uniform", "min": 9, "max": 3}, "`max` (3) is below `min` (9)"),
        ({"dist": "lognormal", "median": 9}, "needs `median` and `p95`, or `mean` and `sigma`"),
        ({"dist": "lognormal", "median": 9, "p95": 3}, "`p95` (3) is below `median` (9)"),
        ({"dist": "lognormal", "median": 9, "sigma": 3}, "needs `median` and `p95`, or `mean` and `sigma`"),
        (
            {"dist": "empirical", "values": [1, 2], "weights": [1]},
            "has 2 `values` but 1 `weights`; give one per value",
        ),
        ({"dist": "empirical", "values": [1], "weights": [0]}, "`weights` are all 0; raise at least one"),
    ],
)
def test_lengths_that_contradict_themselves_are_refused(value: object, message: str) -> None:
    """Contradictory parameters are reported."""
    with pytest.raises(ValidationError) as refusal:
        LENGTH.validate_python(value)
    assert [error["msg"].removeprefix("Value error, ") for error in refusal.value.errors()] == [message]


def test_think_times_are_times_or_distributions_of_times() -> None:
    """Times are kept in seconds."""
    assert TIME.validate_python("500ms").expected_s == 0.5
    assert TIME.validate_python({"dist": "exponential", "mean": "2s"}).expected_s == 2
    lognormal = TIME.validate_python({"dist": "lognormal", "median": "2s", "p95": "8s"})
    assert math.exp(lognormal.log_mean + NormalDist().inv_cdf(0.95) * lognormal.log_sd) == pytest.approx(8)
    assert lognormal.expected_s == pytest.approx(math.exp(lognormal.log_mean + lognormal.log_sd**2 / 2))
