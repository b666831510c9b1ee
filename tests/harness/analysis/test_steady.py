"""Steady: laws of the cut and of the drift, whatever the series."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.analysis.reading import read
from harness.analysis.steady import BATCHES, drift_of, mser, series_of_window
from harness.records import Status
from harness.verdict.steady import cut_of, steady_facts
from tests.fabricated import failed, noisy, streamed, trial_of

numbers = st.lists(st.integers(-1000, 1000).map(float), min_size=2, max_size=120).map(np.array)


@given(numbers)
def test_at_most_half_is_cut_and_no_other_cut_is_better(bins: np.ndarray) -> None:
    """The cut minimises the standard error of the mean of the rest."""
    d = mser(bins)
    errors = [bins[cut:].var() / (len(bins) - cut) for cut in range(len(bins) // 2 + 1)]
    assert 0 <= d <= len(bins) // 2
    assert errors[d] == pytest.approx(min(errors), rel=1e-6, abs=1e-9 * (1 + float(bins.var())))


@given(numbers, st.floats(0.01, 100), st.floats(-1e3, 1e3))
def test_the_cut_does_not_depend_on_the_unit(bins: np.ndarray, factor: float, shift: float) -> None:
    """Nor on where zero is: the cut is as good."""
    moved = bins * factor + shift
    one, other = (bins[cut:].var() / (len(bins) - cut) for cut in (mser(bins), mser(moved)))
    assert other == pytest.approx(one, rel=1e-6, abs=1e-9 * (1 + float(bins.var())))


@given(numbers)
def test_a_constant_series_has_no_warm_up(bins: np.ndarray) -> None:
    """Nothing to cut, and never clearly."""
    assert not cut_of(np.full(len(bins), bins[0])).clear


@given(st.lists(st.floats(1, 1000), min_size=100, max_size=300).map(np.array))
def test_a_drift_backwards_is_the_same_drift(values: np.ndarray) -> None:
    """Read from the end, it is as likely by chance and has the other sign."""
    whole = values[: len(values) // BATCHES * BATCHES]
    one, other = drift_of(whole), drift_of(whole[::-1])
    assert one is not None
    assert other is not None
    assert 0 <= one.p_value <= 1
    assert one.p_value == pytest.approx(other.p_value, rel=1e-6)
    assert one.change == pytest.approx(-other.change, rel=1e-6, abs=1e-9)


def test_the_drift_of_a_line() -> None:
    """From 5 to 195 between the first and the last of the batches: 190 on a mean of 100; a constant has none."""
    line = drift_of(np.arange(0.5, 200))
    assert line is not None
    assert line.change == pytest.approx(1.9)
    assert line.p_value < 1e-6
    constant = drift_of(np.zeros(200))
    assert constant is not None
    assert constant.change == 0
    assert drift_of(np.arange(99.0)) is None


def test_latencies_are_medians_of_five_requests() -> None:
    """With the time of the first, and each value beside them for the trend."""
    records = [streamed(i, i * 100.0, ttft_ms=100.0 + i) for i in range(600)]
    series = series_of_window(read(trial_of(records)))
    ttft, in_flight = series["ttft_ms"], series["in_flight"]
    assert ttft.each is not None
    values, due_s = ttft.each
    assert np.diff(values) == pytest.approx(1.0)
    assert np.diff(due_s) == pytest.approx(0.1)
    assert len(values) > 590
    assert ttft.values == pytest.approx(values[2::5][: len(ttft.values)])
    assert ttft.starts_s == pytest.approx(due_s[::5][: len(ttft.values)])
    count = len(in_flight.values)
    assert in_flight.starts_s == pytest.approx(due_s[-1] / count * np.arange(count))


def test_requests_in_flight_are_exact_means() -> None:
    """Ten requests a second of half a second each are five in flight."""
    records = noisy(1, 600)
    for record in records:
        assert record.due_ns is not None
        record.done_ns = record.due_ns + 500_000_000
    series = series_of_window(read(trial_of(records)))["in_flight"]
    assert series.values[2:] == pytest.approx(5.0, abs=1e-6)


def test_a_trial_without_any_success_is_no_error() -> None:
    """There is nothing to look at but requests in flight, and no latency."""
    records = [failed(i, i * 100.0, Status.CONNECTION_ERROR, 1.0) for i in range(300)]
    assert steady_facts(read(trial_of(records)))["class"] in ("steady", "not enough")
