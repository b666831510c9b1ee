"""What is known of a visit while its last requests are still in flight, and how an overload is seen."""

from __future__ import annotations

import math

import numpy as np

from harness.saturation.observed import State, Visit, backlog_grows, observe, refuses, rises
from harness.saturation.requests import Requests
from harness.seeding import generator


def visited(rate: float, end_s: float, counted_from_s: float = 0.0) -> Visit:
    """A visit from the beginning."""
    return Visit(0, State.SEARCH, rate, 0.0, end_s, counted_from_s)


def answered(due_s: list[float], missed: list[float]) -> Requests:
    """Requests of 1 s each, with these flags; NaN: in flight."""
    due, flags = np.array(due_s), np.array(missed)
    ended = np.where(np.isnan(flags), math.inf, due + 1)
    e2e = np.where(np.isnan(flags), math.nan, 1.0)
    return Requests(due, ended, e2e, e2e, {"slo": flags}, {"ttft": flags})


def test_nothing_behind_the_first_undecided_request_counts() -> None:
    """The one at 2 s is in flight: those decided after it are the fast ones among their like."""
    found = observe(answered([0, 1, 2, 3], [0, 1, math.nan, 0]), visited(1.0, 4.0))
    assert (found.requests, found.missed["slo"], found.seconds) == (2, 1, 2.0)
    assert found.parts == {"ttft": 1}


def test_requests_of_the_settling_time_do_not_count() -> None:
    """They met the queue of the rate before."""
    found = observe(answered([0, 1, 2, 3], [1, 1, 0, 0]), visited(1.0, 4.0, counted_from_s=2.0))
    assert (found.requests, found.missed["slo"], found.seconds) == (2, 0, 2.0)


def test_a_visit_that_ended_before_it_settled_has_no_requests() -> None:
    """Its time is none, not negative."""
    found = observe(answered([0, 1], [1, 1]), visited(1.0, 2.0, counted_from_s=9.0))
    assert (found.requests, found.seconds) == (0, 0.0)


def test_a_backlog_that_grows_is_seen_and_a_steady_one_is_not() -> None:
    """A server of 4/s at 8/s; then the same requests in its time."""
    due = np.arange(0, 20, 1 / 8)
    behind = Requests(due, 1 + 2 * due, 1 + due, due, {}, {})
    in_time = Requests(due, due + 1, np.ones_like(due), np.zeros_like(due), {}, {})
    assert backlog_grows(behind, visited(8.0, 20.0), 1.0, None)
    assert not backlog_grows(in_time, visited(8.0, 20.0), 1.0, None)


def test_first_tokens_far_beyond_the_slo_are_an_overload() -> None:
    """Even if the backlog no longer grows: the queue may be full."""
    due = np.arange(0, 20, 1 / 8)
    full = Requests(due, due + 1, np.ones_like(due), np.full_like(due, 0.9), {}, {})
    assert backlog_grows(full, visited(8.0, 20.0), 1.0, 0.15)
    assert not backlog_grows(full, visited(8.0, 20.0), 1.0, 0.3)


def test_noise_seldom_rises_and_a_slope_does() -> None:
    """In short series, the errors are underestimated: one of twenty instead of one of a hundred is taken as a rise."""
    white = [rises(generator(seed, 1).normal(size=80)) for seed in range(300)]
    assert np.mean(white) < 0.1
    assert rises(np.arange(80) / 20 + generator(1, 2).normal(size=80))


def test_a_server_that_refuses_requests_is_overloaded_without_a_backlog() -> None:
    """From a fifth of the requests on, if that is more than may miss; a few failures are none."""
    due = np.arange(0, 20, 1 / 8)

    def failing(every: int) -> Requests:
        e2e = np.where(np.arange(len(due)) % every == 0, np.nan, 0.1)
        return Requests(due, due + 0.1, e2e, e2e, {}, {})

    visit = visited(8.0, 20.0)
    assert refuses(failing(4), visit, 0.05)
    assert not refuses(failing(4), visit, 0.4)
    assert not refuses(failing(6), visit, 0.05)
    assert not refuses(failing(2), visited(8.0, 2.0), 0.05)
