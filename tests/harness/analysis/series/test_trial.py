"""Series for plots are bounded in size and true to the records."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.analysis.rates import MAX_BINS
from harness.analysis.reading import read
from harness.analysis.series.clouds import LEAST_FOR_P95, MAX_DOTS, bins_of, dots_of, even_edges
from harness.analysis.series.curves import CURVE_POINTS, NAMED
from harness.analysis.series.machine import MAX_POINTS
from harness.analysis.series.time import MOST_SLICES
from harness.analysis.series.trial import series_of
from harness.analysis.summary import measure, summarise
from harness.records import Record, Sample
from tests.fabricated import FabricatedTrial, S, failed, noisy, streamed, trial_of, value


def series(trial: FabricatedTrial, facts: dict[str, Any] | None = None) -> dict[str, Any]:
    """The series of a trial."""
    reading, samples = read(trial), trial.samples()
    curves = {found.class_name: found.distributions for found in measure(trial, reading, samples)}
    return series_of(reading, samples, facts or {}, curves)


@pytest.mark.slow
def test_a_long_trial_has_bounded_series() -> None:
    """However many requests, a plot has so many points."""
    records = [
        failed(i, i * 10.0, "timeout", 30_000) if i % 9 == 0 else streamed(i, i * 10.0, prompt_tokens=20 + i % 500)
        for i in range(20_000)
    ]
    found = series(
        trial_of(records, [Sample(1000 * S + i * S // 100, "engine", "rss_bytes", 1e9) for i in range(9000)])
    )
    assert len(found["distribution"]) <= 4 * (CURVE_POINTS + len(NAMED) + 1)
    assert len(found["latency"]) <= 3 * MAX_DOTS
    assert len(found["lengths"]) <= 2 * MAX_DOTS
    assert len(found["rates"]) <= MAX_BINS + 1
    assert len(found["gauges"]) <= MAX_POINTS
    # requests that never ended leave the curve below one
    curve = found["distribution"].groupby("metric")["share"].max()
    assert curve["e2e_ms"] == pytest.approx(8 / 9, abs=0.01)


def test_the_band_of_a_curve_is_the_interval_of_the_tables() -> None:
    """At the usual quantiles the curve has the value and the ends that the summary states."""
    trial = trial_of(noisy(3, 2000, every_ms=30.0))
    curve = series(trial)["distribution"].query("metric == 'ttft_ms'")
    summary = summarise([trial])
    for level in (0.5, 0.9, 0.95, 0.99):
        row, stated = curve[curve["share"] == level].iloc[0], value(summary, "ttft_ms", f"p{level * 100:g}")
        assert (row["ms"], row["low_ms"], row["high_ms"]) == (stated["value"], stated["low"], stated["high"])
    assert curve[curve["share"] > 0.9995][["low_ms", "high_ms"]].isna().all(axis=None)  # too few for an interval


def test_all_tokens_and_requests_are_in_the_series() -> None:
    """The area under a rate is what there was of it; that under the requests in flight is the time they took."""
    records = noisy(1)
    rates = series(trial_of(records))["rates"]
    width_s = float(np.diff(rates["at_s"])[0])
    areas = (rates.drop(columns="at_s").sum() * width_s).to_dict()
    assert areas["tokens"] == pytest.approx(600 * 40)
    assert (areas["offered"], areas["completed"], areas["failed"]) == pytest.approx((600, 600, 0))
    assert areas["in_flight"] == pytest.approx(sum(r.done_ns - r.sent_ns for r in records) / S)  # type: ignore[operator]


@pytest.mark.parametrize("requests", [600, 3000])
def test_the_table_over_time_has_the_parts_of_the_plot(requests: int) -> None:
    """Its rates are those drawn, part by part; of a long trial the means of as many parts together as fit a table."""
    found = series(trial_of(noisy(1, requests)))
    rates, slices = found["rates"], found["slices"]
    together = -(-len(rates) // MOST_SLICES)
    assert len(slices) == -(-len(rates) // together) <= MOST_SLICES
    half_s = float(np.diff(rates["at_s"])[0]) / 2
    for number, row in slices.iterrows():
        own = rates.iloc[int(str(number)) * together :][:together]
        assert [row["from_s"], row["until_s"]] == pytest.approx(
            [own["at_s"].min() - half_s, own["at_s"].max() + half_s]
        )
        for name in ("offered", "completed", "failed", "in_flight", "tokens"):
            assert row[name] == pytest.approx(own[name].mean())
    widths = slices["until_s"] - slices["from_s"]
    assert (slices["completed"] * widths).sum() == pytest.approx(requests)


@pytest.mark.parametrize(("phase", "failures"), [("measure", 1), ("cooldown", 0)])
def test_what_the_end_cuts_off_behind_the_window_did_not_fail(phase: str, failures: int) -> None:
    """Only a measured request that did not end in time counts as failed."""
    rates = series(trial_of([*noisy(1), failed(600, 59_900, "unfinished", 50, phase=phase)]))["rates"]
    assert rates["failed"].sum() * np.diff(rates["at_s"])[0] == pytest.approx(failures)


@pytest.mark.parametrize("records", [[], [Record(request=0)], [failed(0, 0, "http_error", 1)]])
def test_nothing_measured_has_empty_series(records: list[Record]) -> None:
    """A trial in which nothing worked has nothing to plot, and says so without an error."""
    found = series(trial_of(records, window=None))
    for name in ("distribution", "classes", "latency", "latency_bins", "lengths", "length_bins", "gauges"):
        assert not len(found[name]), name


def test_a_single_slow_request_among_many_stays_seen() -> None:
    """Thinning keeps the extremes of every part of the time, and the middle."""
    records = [streamed(i, i * 10.0, ttft_ms=5000.0 if i == 7777 else 50.0 + i % 7) for i in range(12_000)]
    found = series(trial_of(records, end_s=120.0))
    seen = found["latency"].query("metric == 'ttft_ms'")
    assert seen.query("ms > 4000")["at_s"].tolist() == pytest.approx([77.77])
    assert seen["ms"].median() == pytest.approx(53.0, abs=1)
    assert found["latency_bins"].query("metric == 'ttft_ms'")["p50_ms"].tolist() == [53.0] * 60
    curve = found["distribution"].query("metric == 'ttft_ms'")
    assert (curve["ms"].max(), curve["share"].max()) == (5000.0, 1.0)


def test_the_warm_up_is_seen_and_told_apart() -> None:
    """Requests before the window are among the dots, with their phase; the window divides the time."""
    records = [streamed(i, i * 100.0, phase="warmup" if i < 50 else "measure") for i in range(200)]
    found = series(trial_of(records, start_s=5.0, end_s=20.0), {"steady": {"warmup_s": 2.5}})
    assert found["latency"].query("metric == 'e2e_ms'")["phase"].value_counts().to_dict() == {
        "measure": 150,
        "warmup": 50,
    }
    assert found["phases"]["warmup_end_s"] == 5.0
    assert found["phases"]["measure_end_s"] == 20.0
    assert found["phases"]["steady_s"] == 7.5


def test_bursts_are_marked_until_the_end() -> None:
    """Each that began before the last event; a single spike is one."""
    spans = {"first_s": 5.0, "length_s": 2.0, "every_s": 20.0}
    found = series(trial_of(noisy(1), bursts=spans))["bursts"]
    assert found == [(5.0, 7.0), (25.0, 27.0), (45.0, 47.0)]
    assert series(trial_of(noisy(1), bursts={**spans, "every_s": None}))["bursts"] == [(5.0, 7.0)]
    assert series(trial_of(noisy(1)))["bursts"] == []


def test_classes_have_curves_of_their_own() -> None:
    """Each class of a mixed load; a load of one class has none."""
    records = [streamed(i, i * 50.0, ttft_ms=50.0 + 100 * (i % 2), class_name="ab"[i % 2]) for i in range(400)]
    classes = series(trial_of(records))["classes"].query("metric == 'ttft_ms'")
    assert classes.groupby("class")["ms"].median().to_dict() == pytest.approx({"a": 50.0, "b": 150.0})
    assert not len(series(trial_of(noisy(1)))["classes"])


def test_peaks_of_memory_outlive_thinning() -> None:
    """A single high reading is kept; gauges nobody plots are left out."""
    readings = [
        Sample(1000 * S + i * S // 50, "engine", "rss_bytes", 9e9 if i == 1234 else 1e9) for i in range(2500)
    ] + [Sample(1001 * S, "engine", "threads", 5.0), Sample(1001 * S, "gpu1", "power_w", 300.0)]
    gauges = series(trial_of(noisy(1), readings))["gauges"]
    assert gauges.query("source == 'engine'")["value"].max() == 9e9
    assert (gauges["least"] <= gauges["mean"]).all()
    assert (gauges["mean"] <= gauges["greatest"]).all()
    assert set(zip(gauges["source"], gauges["name"], strict=True)) == {("engine", "rss_bytes"), ("gpu1", "power_w")}


def test_a_time_without_requests_is_a_gap() -> None:
    """Two bursts with nothing between them: the parts in between are there, without a quantile to draw a line to."""
    records = [streamed(i, at, ttft_ms=50.0) for i, at in enumerate([*range(0, 2000, 10), *range(18_000, 20_000, 10)])]
    bins = series(trial_of(records, end_s=20.0))["latency_bins"].query("metric == 'ttft_ms'")
    between = bins[(bins["at_s"] > 3) & (bins["at_s"] < 17)]
    assert len(between) > 5
    assert between["p50_ms"].isna().all()
    assert not between["n"].any()
    assert bins["at_s"].is_monotonic_increasing


@given(st.lists(st.tuples(st.floats(0, 1e3), st.floats(0, 1e6)), min_size=1, max_size=2000))
def test_dots_hold_the_extremes(points: list[tuple[float, float]]) -> None:
    """The greatest and the least of all points are drawn, at most MAX_DOTS of them; bins count every point once."""
    x, y = np.array(sorted(points)).T
    shown = dots_of(x, y)
    assert len(shown) <= MAX_DOTS
    assert (y[shown].max(), y[shown].min()) == (y.max(), y.min())
    _, counts, _, p95 = bins_of(x, y, even_edges(x))
    assert counts.sum() in (0, len(x))
    assert (np.isnan(p95) == (counts < LEAST_FOR_P95)).all()
