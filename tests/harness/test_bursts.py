"""Bursts: what is said of each follows from when requests were due and when they ended."""

from __future__ import annotations

import math

import numpy as np
import pytest

from harness.bursts import bursts_of, spans_of
from harness.reading import read
from harness.records import Record
from tests.fabricated import failed, streamed, trial_of
from tests.plans import load_of


def queue(due_ms: list[float], service_ms: float) -> list[Record]:
    """Requests at a server that takes them one after the other; the first token comes at the end."""
    records, free = [], 0.0
    for number, due in enumerate(due_ms):
        free = max(free, due) + service_ms
        records.append(streamed(number, due, ttft_ms=free - due, tokens=1))
    return records


def test_a_lone_spike_is_drained_when_the_last_has_ended() -> None:
    """Twenty at once at a server that takes 100 ms for each: 20 wait, 2 s to drain; there is no before to return to."""
    spans = {"first_s": 0.0, "length_s": 0.0, "every_s": None}
    found = bursts_of(read(trial_of(queue([0.0] * 20, 100), bursts=spans, end_s=None)))
    assert found is not None
    (one,) = found["taken"]
    assert (one["requests"], one["backlog_peak"], one["backlog_before"], one["errors"]) == (20, 20, 0, 0)
    assert one["drained_s"] == pytest.approx(2.0)
    assert one["recovered_s"] is None


def test_a_spike_over_a_base_rate() -> None:
    """Five a second for a minute, 50 ms each; 100 more at 30 s take 5 s, and 250 ms of each later second are work, so
    that the queue is empty 20/3 s after: the median TTFT is as before from then on.
    """
    due = sorted([*np.arange(0, 60_000, 200.0).tolist(), *[30_000.1] * 100])
    spans = {"first_s": 30.0001, "length_s": 0.0, "every_s": None}
    found = bursts_of(read(trial_of(queue(due, 50), bursts=spans)))
    assert found is not None
    (one,) = found["taken"]
    assert one["requests"] == 100
    assert one["backlog_before"] == 1
    assert one["backlog_peak"] in (100, 101)
    assert one["drained_s"] == pytest.approx(5.0 / 0.75, abs=0.25)
    assert one["drained_s"] <= one["recovered_s"] + 3.0
    assert one["recovered_s"] == pytest.approx(6.0, abs=3.0)


def test_every_burst_is_told_and_the_mean_of_many() -> None:
    """Ten bursts of 20 requests in 1 s, each drained in the same time; the interval closes on it."""
    due = [k * 10_000 + 4_500 + i * 50.0 for k in range(10) for i in range(20)]
    spans = {"first_s": 4.5, "length_s": 1.0, "every_s": 10.0}
    found = bursts_of(read(trial_of(queue(due, 100), bursts=spans, end_s=100.0)))
    assert found is not None
    assert [one["start_s"] for one in found["taken"]] == [4.5 + 10 * k for k in range(10)]
    assert {one["requests"] for one in found["taken"]} == {20}
    assert [one["drained_s"] for one in found["taken"]] == pytest.approx([1.0] * 10)
    assert found["drained_s"] == pytest.approx([1.0, 1.0, 1.0])


def test_a_burst_that_is_not_drained_before_the_next() -> None:
    """Its time is not known, and there is no mean."""
    due = [k * 2_000 + 500 + i * 50.0 for k in range(9) for i in range(20)]
    spans = {"first_s": 0.5, "length_s": 1.0, "every_s": 2.0}
    found = bursts_of(read(trial_of(queue(due, 200), bursts=spans)))
    assert found is not None
    assert found["taken"][0]["drained_s"] is None
    assert found["drained_s"] is None


def test_errors_belong_to_the_burst_in_which_they_were_due() -> None:
    """Three of those due in the burst failed."""
    records = queue([i * 100.0 for i in range(100)], 10)
    records[50:53] = [failed(i, i * 100.0, "http_error", 5) for i in range(50, 53)]
    spans = {"first_s": 5.0, "length_s": 1.0, "every_s": None}
    found = bursts_of(read(trial_of(records, bursts=spans)))
    assert found is not None
    assert (found["taken"][0]["errors"], found["taken"][0]["requests"]) == (3, 10)


def test_loads_without_bursts_have_none() -> None:
    """Neither their entry nor their facts."""
    assert spans_of(load_of(kind="sustained", rate=1, duration="10s")) is None
    assert bursts_of(read(trial_of(queue([0.0, 1.0], 1)))) is None


def test_where_the_bursts_of_a_load_are() -> None:
    """Bursts stand in the middle of their period, after the warm-up; a spike at its time after the warm-up."""
    bursts = load_of(kind="burst", rate=1, burst_rate=8, burst_for="2s", every="10s", duration="60s", warmup="5s")
    spike = load_of(
        kind="burst", rate=1, spike={"requests": 9, "within": "1s", "at": "7s"}, duration="60s", warmup="5s"
    )
    assert spans_of(bursts) == {"first_s": 9.0, "length_s": 2.0, "every_s": 10.0}
    assert spans_of(spike) == {"first_s": 12.0, "length_s": 1.0, "every_s": None}
    assert not math.isnan(spike.warmup_s)
