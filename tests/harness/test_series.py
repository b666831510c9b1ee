"""Series for plots are bounded in size and true to the records."""

from __future__ import annotations

import numpy as np
import pytest

from harness.rates import MAX_BINS
from harness.reading import read
from harness.records import Record, Sample
from harness.series import CURVE_POINTS, MAX_POINTS, series_of
from tests.fabricated import S, failed, noisy, streamed, trial_of


def test_a_long_trial_has_bounded_series() -> None:
    """However many requests, a plot has so many points."""
    records = [failed(i, i * 10.0, "timeout", 30_000) if i % 9 == 0 else streamed(i, i * 10.0) for i in range(20_000)]
    trial = trial_of(records, [Sample(1000 * S + i * S // 100, "engine", "rss_bytes", 1e9) for i in range(9000)])
    found = series_of(read(trial), trial.samples(), {})
    assert len(found["distribution"]) <= 2 * CURVE_POINTS
    assert len(found["latency"]) <= MAX_POINTS
    assert len(found["tokens"]) <= MAX_BINS + 1
    assert len(found["memory"]) <= MAX_POINTS
    # requests that never ended leave the curve below one
    curve = found["distribution"].groupby("metric")["share"].max()
    assert curve["e2e_ms"] == pytest.approx(8 / 9, abs=0.01)


def test_all_tokens_are_in_the_series() -> None:
    """The area under tokens/s is the number of tokens."""
    trial = trial_of(noisy(1))
    tokens = series_of(read(trial), trial.samples(), {})["tokens"]
    width_s = float(np.diff(tokens["at_s"])[0])
    assert float(tokens["tokens_per_s"].sum()) * width_s == pytest.approx(600 * 40)


@pytest.mark.parametrize("records", [[], [Record(request=0)], [failed(0, 0, "http_error", 1)]])
def test_nothing_measured_has_empty_series(records: list[Record]) -> None:
    """A trial in which nothing worked has nothing to plot, and says so without an error."""
    trial = trial_of(records, window=None)
    found = series_of(read(trial), trial.samples(), {})
    assert not len(found["distribution"])
    assert not len(found["memory"])


def test_a_single_slow_request_among_many_stays_seen() -> None:
    """Thinning keeps the extremes of every part of the time, and the middle."""
    records = [streamed(i, i * 10.0, ttft_ms=5000.0 if i == 7777 else 50.0 + i % 7) for i in range(12_000)]
    found = series_of(read(trial_of(records, end_s=120.0)), trial_of([]).samples(), {})
    slow = found["latency"].query("ttft_ms > 4000")
    assert slow["due_s"].tolist() == pytest.approx([77.77])
    assert found["latency"]["ttft_ms"].median() == pytest.approx(53.0, abs=1)
    curve = found["distribution"].query("metric == 'ttft_ms'")
    assert (curve["ms"].max(), curve["share"].max()) == (5000.0, 1.0)
