"""Failures per time."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.analysis.counts import most_in
from harness.analysis.summary import summarise
from harness.scenario.limits import parse_limit
from harness.verdict.limits.gate import extra_statistics
from tests.fabricated import FabricatedTrial, cell_entry, failed, noisy, trial_entry, value


@pytest.mark.parametrize(
    ("times", "length", "most"),
    [([], 5.0, 0), ([1.0], 5.0, 1), ([0.0, 4.0, 5.0, 9.0], 5.0, 2), ([0.0, 5.0, 10.0], 5.0, 1), ([2.0] * 4, 1.0, 4)],
)
def test_the_most_in_any_stretch(times: list[float], length: float, most: int) -> None:
    """A stretch is half open, so moments a whole length apart are never in one."""
    assert most_in(np.array(times), length) == most


@given(st.lists(st.integers(0, 100), max_size=30), st.integers(1, 120))
def test_it_is_that_of_the_best_stretch(moments: list[int], length: int) -> None:
    """Which begins at one of the moments."""
    times = np.sort(np.array(moments, dtype=np.float64))
    tried = [int(((times >= start) & (times < start + length)).sum()) for start in times]
    assert most_in(times, float(length)) == max(tried, default=0)


def test_failures_are_counted_where_they_ended_by_kind_and_class() -> None:
    """600 requests over a minute: a burst of time-outs, and a server whose memory ran out twice."""
    records = noisy(1)
    for i in (100, 101, 102, 400):
        records[i] = failed(i, i * 100.0, "timeout", 1000)
    for i in (110, 500):
        records[i] = failed(i, i * 100.0, "http_error", 5, error="CUDA error: out of memory", class_name="chat")
    limits = ["errors <= 1 per 10s", "timeouts <= 1 per 10s", "out_of_memory <= 1 per 10s", "chat.errors <= 1 per 30s"]
    trial = FabricatedTrial(cell_entry(), trial_entry(), records)
    rows = summarise([trial], extra_statistics(limits))
    for name, most in (("errors", 4), ("timeouts", 3), ("out_of_memory", 1)):
        row = value(rows, name, str(parse_limit(f"{name} <= 1 per 10s").statistic))
        assert (row["value"], row["bound"], row["n"]) == (most, "point", 600)
    assert value(rows, "errors", "most per 30s", **{"class": "chat"})["value"] == 1


def test_a_measurement_shorter_than_the_stretch_gives_at_least_what_was_seen() -> None:
    """A longer one might have shown more; without a failure, too."""
    rows = summarise([FabricatedTrial(cell_entry(), trial_entry(), noisy(1))], extra_statistics(["errors <= 1 per 5m"]))
    row = value(rows, "errors", "most per 300s")
    assert (row["value"], row["low"], row["high"], row["bound"]) == (0, 0, np.inf, "lower")
