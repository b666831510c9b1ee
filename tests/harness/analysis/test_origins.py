"""Where latencies begin: at due by the plan, at sent where a request follows a reply."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.analysis.latencies import good, of_each, origin
from harness.analysis.reading import read
from harness.records import Loop, Record, Status
from harness.results import derive
from harness.store.manifest import METHOD, Manifest
from tests.driven import driven_on, number, simulated
from tests.fabricated import again, failed, streamed, trial_of
from tests.plans import exact_schedule
from tests.stored import KEY, results_of

FROM_START = ("ttft_ms", "ttfo_ms", "e2e_ms", "e2e_close_ms", "norm_latency_ms")
BUSY_S = 0.02
MS = 1_000_000


def observed(*records: Record) -> dict[str, list[float]]:
    """The observations of each distribution."""
    return {name: found.values.tolist() for name, found in read(trial_of(records)).observed.items()}


def late(request: int, lag_ms: float, loop: Loop, **changes: object) -> Record:
    """A reply of ten tokens that takes 100 + 90 ms from sent, after `lag_ms` in which the client did nothing."""
    return streamed(request, request * 1000, lag_ms=lag_ms, ttft_ms=100 + lag_ms, loop=loop, **changes)


@given(st.integers(0, 900), st.sampled_from((Loop.OPEN, Loop.CLOSED)))
def test_only_a_request_of_the_plan_takes_the_clients_time_into_its_latency(lag_ms: int, loop: Loop) -> None:
    """From due they grow by it, from sent by nothing; it stands in one of two distributions."""
    found, closed = observed(late(0, lag_ms, loop)), loop is Loop.CLOSED
    first, last = (100, 190) if closed else (100 + lag_ms, 190 + lag_ms)
    assert [found[name] for name in FROM_START] == [[first], [first], [last], [last], [last / 10]]
    assert (found["ttft_service_ms"], found["e2e_service_ms"]) == ([100], [190])
    kept, empty = ("client_turnaround_ms", "send_lag_ms") if closed else ("send_lag_ms", "client_turnaround_ms")
    assert (found[kept], found[empty]) == ([lag_ms], [])


def test_turns_of_a_conversation_begin_each_in_its_own_way() -> None:
    """The first is due by the plan, the second when the first has ended; both were sent 30 ms late."""
    records = [late(0, 30, Loop.OPEN, session=0), late(1, 30, Loop.CLOSED, session=0, turn=1, after=0)]
    found, columns = observed(*records), read(trial_of(records, loop="partly_open")).columns
    assert (found["ttft_ms"], found["e2e_ms"]) == ([130, 100], [220, 190])
    assert (found["send_lag_ms"], found["client_turnaround_ms"]) == ([30], [30])
    assert origin(columns) == "from due (first turns), from sent (later turns)"
    assert of_each(columns)["ttft_ms"].tolist() == [130, 100]
    assert good(columns, {"ttft_ms": 110.0})[0].tolist() == [False, True]
    assert good(columns, {"e2e_ms": 200.0})[0].tolist() == [False, True]


def test_a_wait_for_a_place_is_in_every_latency_and_in_no_lateness() -> None:
    """Both turns were due 30 ms before they were sent, and waited 20 of them for a place."""
    turns = [(0, Loop.OPEN, None), (1, Loop.CLOSED, 0)]
    records = [late(i, 30, loop, session=0, turn=i, after=after, held_ns=20 * MS) for i, loop, after in turns]
    found, columns = observed(*records), read(trial_of(records, loop="partly_open")).columns
    assert (found["ttft_ms"], found["e2e_ms"]) == ([130, 120], [220, 210])
    assert (found["ttft_service_ms"], found["e2e_service_ms"]) == ([100, 100], [190, 190])
    assert (found["send_lag_ms"], found["client_turnaround_ms"]) == ([10], [10])
    assert found["held_ms"] == [20, 20]
    assert origin(columns) == "from due (first turns), from sent or the wait for a place (later turns)"
    assert of_each(columns)["ttft_ms"].tolist() == [130, 120]
    assert good(columns, {"ttft_ms": 125.0})[0].tolist() == [False, True]


def test_what_the_server_took_to_accept_is_no_turnaround() -> None:
    """Sent 30 ms after the reply before, of which the server took 20 to accept."""
    assert observed(late(0, 30, Loop.CLOSED, accepting_ns=20 * MS))["client_turnaround_ms"] == [10]


def test_a_request_that_timed_out_before_it_was_sent_counts_from_due() -> None:
    """No reply before it took that long: the latency is a bound, and not lost."""
    never = failed(0, 0, Status.TIMEOUT, 5000, sent_ns=None, loop=Loop.CLOSED)
    found = read(trial_of([never, late(1, 30, Loop.CLOSED)])).observed
    for name, whole in (("ttft_ms", 100), ("e2e_ms", 190)):
        assert found[name].values.tolist() == [math.inf, whole]
        assert found[name].bounds.tolist() == [5000, whole]


@pytest.mark.parametrize(("loop", "words"), [(Loop.OPEN, "from due"), (Loop.CLOSED, "from sent")])
def test_the_facts_say_where_latencies_begin_and_why_the_other_lag_is_missing(loop: Loop, words: str) -> None:
    """An open loop has no turnaround, a closed one no lag behind a plan."""
    trial = trial_of([late(i, 3, loop) for i in range(20)], loop=str(loop), end_s=20.0)
    manifest = Manifest(method=METHOD, cells=[again(trial.cell, trials=[trial.trial])])
    (facts,) = derive(manifest, [trial]).facts.values()
    assert facts["origin"] == words
    absent = "send_lag_ms" if loop is Loop.CLOSED else "client_turnaround_ms"
    assert "plan" in facts["missing"][absent]


def test_a_slow_load_generator_moves_the_turnaround_of_a_closed_loop_and_no_latency(tmp_path: Path) -> None:
    """One user, 50 ms a reply, 20 ms of the client's own after each: latencies of 50 ms, and 1 / 70 ms a second."""
    schedule = exact_schedule(1, kind="single_user", warmup="1s", duration="70s")
    records, report = driven_on(simulated(ttft_ms=50, tpot_ms=0), schedule, busy_s=BUSY_S)
    results = results_of(tmp_path / "run", records, schedule)
    for metric, expected in (("ttft_ms", 50), ("e2e_ms", 50), ("client_turnaround_ms", 20)):
        for statistic in ("p50", "max"):
            assert number(results, metric, statistic) == pytest.approx(expected, abs=1e-3)
    assert number(results, "completed_rps") == pytest.approx(1 / 0.07, rel=0.002)
    assert results.facts[KEY]["origin"] == "from sent"
    assert report.send_lag_p50_ms == pytest.approx(20, abs=1e-3)


def test_a_slow_load_generator_is_in_the_latency_of_an_open_loop(tmp_path: Path) -> None:
    """One request every 50 ms, each of 45: the client is busy until 65 ms with the first, so the second is 15 late."""
    schedule = exact_schedule(1, kind="sustained", rate=20, arrivals="constant", duration="30s")
    records, _ = driven_on(simulated(ttft_ms=45, tpot_ms=0), schedule, busy_s=BUSY_S)
    results = results_of(tmp_path / "run", records, schedule)
    ttft, sent, lag = (number(results, name, "max") for name in ("ttft_ms", "ttft_service_ms", "send_lag_ms"))
    assert [ttft, sent, lag] == pytest.approx([60, 45, 15], abs=1e-3)


def test_later_turns_count_from_sent_and_their_pause_is_the_users(tmp_path: Path) -> None:
    """Ten conversations of three turns: the client is busy for 20 ms, of which the user thinks for 10."""
    talks = {"kind": "sessions", "rate": 1, "sessions": 10, "turns": 3, "think_time": "10ms", "arrivals": "constant"}
    schedule = exact_schedule(1, **talks)
    records, _ = driven_on(simulated(ttft_ms=50, tpot_ms=0), schedule, busy_s=BUSY_S)
    results = results_of(tmp_path / "run", records, schedule)
    assert number(results, "ttft_ms", "max") == pytest.approx(50, abs=1e-3)
    assert number(results, "client_turnaround_ms", "p50") == pytest.approx(10, abs=1e-3)
    assert number(results, "send_lag_ms", "max") == pytest.approx(0, abs=1e-3)
    rows = results.summary[(results.summary["repetition"] == "pooled") & (results.summary["statistic"] == "max")]
    counts = dict(zip(rows["metric"], rows["n"], strict=True))
    assert (counts["send_lag_ms"], counts["client_turnaround_ms"], counts["ttft_ms"]) == (10, 20, 30)


def test_the_start_is_a_column_of_those_requests() -> None:
    """Chosen rows keep it; in due order."""
    columns = read(trial_of([late(i, 5, Loop.CLOSED if i % 2 else Loop.OPEN) for i in range(6)])).columns
    expected = np.array([i * 1000 + (5 if i % 2 else 0) for i in range(6)]) * MS
    assert columns.start.tolist() == expected.tolist()
    assert columns.where(columns.closed).start.tolist() == expected[1::2].tolist()
