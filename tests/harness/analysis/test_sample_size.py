"""Sample size: what is said before a run, and what it lacked after."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.analysis import stats
from harness.analysis.reading import read
from harness.analysis.sample_size import label, sizes_of
from harness.verdict.forecast import measured_requests, will_be_bounds
from tests.fabricated import noisy, trial_of
from tests.plans import load_of, workload_of


def said(limits: tuple[str, ...] = (), repetitions: int = 1, **load: Any) -> str | None:
    """The line about a load."""
    return will_be_bounds("chat", load_of(**load), workload_of(), limits, repetitions)


def test_a_short_open_load_is_told_how_long_it_must_be() -> None:
    """Two requests a second for 28 s are 56: a p95 needs 59, which take 30 s, and a p99 299, which take 3 min."""
    line = said(kind="sustained", rate=2, duration="28s", warmup="10s")
    assert line is not None
    assert line == (
        "load chat: about 56 requests in 28 s; a two-sided interval of p95 needs 59, 30 s and p99 needs 299, 2 min"
    )


def test_a_load_of_a_number_of_requests_needs_more_of_them() -> None:
    """It has no time that could be too short."""
    line = said(kind="single_user", requests=100)
    assert line == "load chat: about 100 requests; a two-sided interval of p99 needs 299"


def test_repetitions_are_taken_together() -> None:
    """Three times a hundred are enough for a p99; twice are not."""
    assert said(kind="single_user", requests=100, repetitions=3) is None
    line = said(kind="single_user", requests=100, repetitions=2)
    assert line is not None
    assert "about 100 requests, 2 times; a two-sided interval of p99" in line


def test_levels_of_limits_count() -> None:
    """A limit on p99.9 needs far more than the levels that are always given."""
    assert said(kind="single_user", requests=1000) is None
    line = said(("ttft_ms p99.9 <= 800",), kind="single_user", requests=1000)
    assert line is not None
    assert f"p99.9 needs {stats.floor_two_sided(0.999):,}" in line


def test_nobody_knows_how_many_requests_a_closed_load_makes_in_a_time() -> None:
    """Nothing is said."""
    assert said(kind="sustained", users=8, duration="30s") is None


@given(st.integers(1, 2000), st.integers(1, 10))
def test_more_requests_never_need_more(requests: int, repetitions: int) -> None:
    """A load with a request more lacks no level that the smaller one has."""
    less, more = (said(kind="single_user", requests=n, repetitions=repetitions) or "" for n in (requests, requests + 1))
    for p in (0.5, 0.95, 0.99):
        assert f"{label(p)} needs" in less or f"{label(p)} needs" not in more
        assert (f"{label(p)} needs" in less) == (requests * repetitions < stats.floor_two_sided(p))


def test_the_warm_up_is_not_measured() -> None:
    """Only the window counts."""
    assert measured_requests(load_of(kind="sustained", rate=2, duration="30s", warmup="60s"), workload_of()) == 60


@pytest.mark.parametrize(("n", "lacking"), [(600, set()), (200, {"ttft_ms p99", "tpot_ms p99", "e2e_ms p99"})])
def test_what_a_trial_rests_on_is_a_fact(n: int, lacking: set[str]) -> None:
    """Each quantile that matters, and how many times as long the trial should have been for both ends."""
    reading = read(trial_of(noisy(3, n)))
    found = sizes_of(reading)
    assert set(found) == {f"{name} {p}" for name in ("ttft_ms", "tpot_ms", "e2e_ms") for p in ("p50", "p95", "p99")}
    assert {name for name, size in found.items() if size["times_longer"] > 1} == lacking
    for size in found.values():
        assert size["n"] == n
        assert size["n_eff"] <= n
        assert size["states"] == reading.guard.states
        assert size["needed"] == stats.floor_two_sided(size["level"])
        assert size["times_longer"] == pytest.approx(max(1.0, size["needed"] / size["n_eff"]), rel=0.02)


def test_quantiles_of_limits_are_sized_too() -> None:
    """Only those of all requests: not a mean and not a class."""
    limits = ["e2e_ms p99.9 <= 9", "tpot_ms p95 <= 9", "e2e_ms mean <= 9", "a.ttft_ms p99.9 <= 9", "error_rate <= 0.1"]
    found = sizes_of(read(trial_of(noisy(3, 600), limits=limits)))
    assert "e2e_ms p99.9" in found
    assert "ttft_ms p99.9" not in found
    assert found["e2e_ms p99.9"]["times_longer"] > 4
