"""What a cap and retries did to a load: told in a note, held against neither the load generator nor the plan."""

from __future__ import annotations

from typing import Any

import pytest

from harness.analysis.reading import read
from harness.analysis.retries import retries_of
from harness.records import Record
from harness.schedule.requests import Schedule
from harness.verdict.reason import Level, Reason, Validity
from tests.driven import driven_on, measured, simulated
from tests.fabricated import S, changed, streamed, trial_of
from tests.judged import codes, judged, judged_records
from tests.plans import exact_schedule


def note(validity: Validity, code: str) -> Reason:
    """Its one note of a code."""
    (found,) = [one for one in validity.notes if one.code == code]
    return found


def capped(plan: Schedule, cap: int, busy_s: float = 0.0, ttft_ms: float = 1000, **trial: Any) -> Validity:
    """The judgement of a load under a cap, on an engine that takes as long for each request."""
    records, _ = driven_on(simulated(ttft_ms=ttft_ms, tpot_ms=0), plan, cap=cap, busy_s=busy_s)
    seconds = (measured(records)[-1].due_ns or 0) / S
    return judged(trial_of(records, max_concurrency=cap, end_s=seconds, **trial))


def bursts(cap: int) -> Validity:
    """Two at once, then eight, each second: each takes 0.1 s, so that all have ended before the next."""
    keys = {"kind": "burst", "rate": 2, "burst_rate": 80, "burst_for": "100ms", "every": "1s", "duration": "60s"}
    return capped(exact_schedule(1, arrivals="constant", **keys), cap, ttft_ms=100, kind="burst")


def test_a_wait_for_a_place_is_no_fault_of_the_load_generator() -> None:
    """Requests that wait in each burst leave late, a fifth of the trial's and by many times the median TTFT: the data
    is good, and the note says what the cap did.
    """
    found = bursts(2)
    assert (found.verdict, found.reasons) == (Level.VALID, ())
    told = note(found, "capped").sentence
    assert told.endswith("With this cap the load is closed while the server is slower than the rate.")
    assert " requests waited for one of 2 places; these waited " in told


def test_a_cap_that_held_nobody_is_not_told() -> None:
    """Nothing happened."""
    assert not [one for one in bursts(40).notes if one.code == "capped"]


def test_the_note_has_the_wait_and_its_part_of_the_latencies() -> None:
    """D/D/8 at 10/s and 1 s: the k-th round of eight waits 0.2 s · k, of which the first does not."""
    found = capped(exact_schedule(1, kind="sustained", rate=10, requests=160, arrivals="constant"), 8)
    assert note(found, "capped").sentence == (
        "152 of 160 requests waited for one of 8 places; these waited 3,800 ms at p95. TTFT p95 is 4,600 ms, 1,000 ms "
        "without the wait. With this cap the load is closed while the server is slower than the rate."
    )


def test_overload_is_seen_through_a_cap() -> None:
    """The server sees eight requests at all times, while those that wait for a place pile up: p95 grows with the
    window, and that is no failure of the load.
    """
    found = capped(exact_schedule(1, kind="sustained", rate=10, requests=600, arrivals="constant"), 8)
    assert set(codes(found)) == {"overload"}
    (reason,) = found.reasons
    assert reason.sentence.startswith("Overload: requests in flight or waiting for a place grew by +")
    assert reason.advice == "Lower the rate, or raise `max_concurrency`: fewer requests complete than arrive."
    assert not found.load_failed


def test_a_load_generator_that_is_slow_to_fill_places_is_told() -> None:
    """It is busy for 40 ms after each reply of 90 ms: the place is empty for that long while requests wait for it, and
    they wait the longer for it.
    """
    keys = {"kind": "sustained", "rate": 10, "requests": 400, "arrivals": "constant"}
    (reason,) = [
        one for one in capped(exact_schedule(1, **keys), 1, 0.04, ttft_ms=90).reasons if one.code != "overload"
    ]
    assert reason.code == "client_slow"
    assert "40.0 ms to fill a place that requests waited for: 31% less load than the cap allows." in reason.sentence
    assert {"completed_rps", "ttft_ms", "e2e_ms"} <= set(reason.metrics)


def test_a_later_turn_that_waited_is_no_slow_load_generator() -> None:
    """Turns that follow replies and wait 75 ms for a place: no part of the turnaround, and a part of the latency."""
    turns = [streamed(i, i * 100.0, ttft_ms=155, lag_ms=75, loop="closed", held_ns=75 * 10**6) for i in range(300)]
    found = judged_records(turns, loop="partly_open", max_concurrency=4)
    assert "client_slow" not in codes(found)
    assert "TTFT p95 is 155 ms, 80.0 ms without the wait." in note(found, "capped").sentence
    free = [streamed(i, i * 100.0, ttft_ms=155, lag_ms=75, loop="closed") for i in range(300)]
    assert "client_slow" in codes(judged_records(free, loop="partly_open"))


def retried(retries: dict[int, int]) -> list[Record]:
    """One request each 100 ms, some of them sent again."""
    return [changed(streamed(i, i * 100.0, lag_ms=0), retries=retries.get(i, 0)) for i in range(600)]


def test_retries_are_told_with_their_causes_and_the_rate_that_the_server_saw() -> None:
    """Of 600 requests in 60 s 30 were sent again, 7 of them twice."""
    again = {i: 1 + (i < 7) for i in range(30)}
    found = judged_records(retried(again), client={"retried": {"connect": 7, "HTTP 503": 30}})
    assert (found.verdict, found.reasons) == (Level.VALID, ())
    assert note(found, "retried").sentence == (
        "Retried 37 times in 30 requests: 30 after HTTP 503, 7 after connect. The server saw 10.6 requests/s, 10.0 "
        "without retries."
    )


def test_without_retries_nothing_is_told() -> None:
    """Neither as a note nor as a fact."""
    trial = trial_of(retried({}))
    assert not [one for one in judged(trial).notes if one.code == "retried"]
    assert retries_of(trial.trial, read(trial)) == {}


def test_the_fact_has_the_numbers_of_the_note() -> None:
    """For programs."""
    trial = trial_of(retried({3: 2}), client={"retried": {"HTTP 429": 2}})
    found = retries_of(trial.trial, read(trial))
    assert {name: found[name] for name in ("attempts", "requests", "causes")} == {
        "attempts": 2,
        "requests": 1,
        "causes": {"HTTP 429": 2},
    }
    assert found["seen_rps"] - found["due_rps"] == pytest.approx(2 / 60, rel=0.01)
