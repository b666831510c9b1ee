"""Validity: each doubt states its effect, is raised where that matters, and names the numbers that it is about."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from harness.analysis.reading import read
from harness.records import Record
from harness.store.manifest import CalibrationEntry
from harness.verdict.client import largest_load
from harness.verdict.reason import Level, Reason, Validity
from harness.verdict.validity import unmeasured
from tests import judged as judging
from tests.fabricated import MS, S, changed, failed, noisy, streamed, trial_entry, trial_of
from tests.judged import codes, noted
from tests.judged import judged_records as judged


def only(validity: Validity, code: str) -> Reason:
    """Its one doubt of a code."""
    (reason,) = [one for one in validity.reasons if one.code == code]
    return reason


def late(lag_ms: float, *, every: int = 1, n: int = 600, ttft_ms: float = 80.0) -> list[Record]:
    """Open loop of which each so-many-th request leaves late; latencies from due hold the lag."""
    return [
        streamed(i, i * 100.0, ttft_ms=ttft_ms + own, lag_ms=own)
        for i in range(n)
        for own in [lag_ms if i % every == 0 else 0.05]
    ]


def read_late(share: float, together: int = 4, n: int = 600, *, gap_ms: float = 10.0, **changes: Any) -> list[Record]:
    """Trial of which a share of the first tokens was read late, with the chunks behind them: all bear one stamp."""
    records = []
    for i in range(n):
        one = streamed(i, i * 100.0, ttft_ms=80.0 + i % 3, gap_ms=gap_ms, lag_ms=0.0, **changes)
        if i * share % 1 < share:
            times = list(one.chunk_ns or ())
            times[:together] = [times[together - 1]] * together
            reads = [0] * together + list(range(1, len(times) - together + 1))
            waits = [int(together * gap_ms * MS)] * together + [0] * (len(times) - together)
            changed(one, chunk_ns=times, chunk_read=reads, chunk_lag_ns=waits, first_token_ns=times[0])
        records.append(one)
    return records


def closed(turnaround_ms: float, users: int = 4, rounds: int = 60) -> list[Record]:
    """Closed loop whose users are sent again so long after each reply; a reply takes 170 ms."""
    records, due = [], [0.0] * users
    for i in range(users * rounds):
        user = i % users
        one = streamed(i, due[user], ttft_ms=80 + turnaround_ms, lag_ms=turnaround_ms, loop="closed", user=user)
        records.append(one)
        due[user] = (one.done_ns or 0) / MS
    return records


def test_a_clean_trial_is_valid() -> None:
    """Nothing to complain about gives no reason."""
    assert judged(noisy(1), planned={"measure": 600, "warmup": 0}) == Validity(Level.VALID)


@pytest.mark.parametrize(("n", "missing", "level"), [(600, 1, Level.WARN), (600, 7, Level.INVALID), (50, 0, None)])
def test_missing_records_count_by_their_share(n: int, missing: int, level: Level | None) -> None:
    """More than one in a hundred, and the load was another one."""
    found = judged(noisy(1, n), planned={"measure": n + missing})
    assert codes(found).get("load_missing") is level
    assert found.load_failed is (level is Level.INVALID)


def test_a_doubled_record_is_a_fault() -> None:
    """No request has two."""
    records = noisy(1)
    assert codes(judged([*records, records[0]]))["load_missing"] is Level.WARN


@pytest.mark.parametrize(
    ("lag_ms", "level"), [(0.1, None), (3.0, None), (6.0, Level.WARN), (15.0, Level.WARN), (40.0, Level.INVALID)]
)
def test_a_late_client_counts_by_its_effect(lag_ms: float, level: Level | None) -> None:
    """TTFT p50 is 80 ms from sent: beyond 5 % it warns, beyond a quarter the load was another one."""
    found = judged(late(lag_ms))
    assert codes(found).get("client_late") is level
    if level is Level.WARN:
        reason = only(found, "client_late")
        ttft = next(one for one in reason.effects if (one.metric, one.statistic) == ("ttft_ms", "p50"))
        assert (ttft.value, ttft.low) == (pytest.approx(80 + lag_ms), pytest.approx(80.0))
        assert "TTFT" in reason.sentence


def test_one_hiccup_in_a_long_trial_is_no_doubt() -> None:
    """A rare late request moves no quantile, however many there are in all: no threshold of zero grows with the run."""
    for n in (600, 5000):
        assert judged(late(30.0, every=250, n=n), end_s=n / 10).verdict is Level.VALID


def test_time_outs_are_the_slowest_of_the_requests_whose_latency_may_be_off() -> None:
    """A tenth never answered: p95 is no number that anything could be off, p50 is."""
    records = late(20.0, n=540) + [failed(540 + i, i * 100.0, "timeout", 3000.0) for i in range(60)]
    found = judged(records)
    statistics = {one.statistic for one in only(found, "client_late").effects if one.metric == "ttft_ms"}
    assert statistics == {"p50"}
    assert "those that never ended count as the slowest" in only(found, "errors").sentence


def test_late_requests_in_the_tail_name_the_tail() -> None:
    """Three in a hundred are late: p99 is doubted, p50 and p95 are not; TPOT has nothing to do with it."""
    found = judged(late(60.0, every=33))
    reason = only(found, "client_late")
    assert {one.statistic for one in reason.effects} == {"p99"}
    assert found.level_of("ttft_ms") is Level.WARN
    assert found.level_of("tpot_ms") is found.level_of("error_rate") is Level.VALID
    assert not found.load_failed


def test_a_late_client_does_not_matter_for_slow_engines() -> None:
    """Six milliseconds are nothing beside two seconds."""
    assert "client_late" not in codes(judged(late(6.0, ttft_ms=2000)))


def test_a_tolerance_of_the_scenario_decides() -> None:
    """Three milliseconds of 80 are within 5 %, and beyond 2 %."""
    assert codes(judged(late(3.0), tolerance=0.02)) == {"client_late": Level.WARN}


def test_an_effect_that_turns_a_limit_is_told_however_small() -> None:
    """From sent the p50 of 80 ms holds a limit that 82 ms from due breaks."""
    assert "client_late" not in codes(judged(late(2.0)))
    assert codes(judged(late(2.0), limits=["ttft_ms p50 <= 81ms"])) == {"client_late": Level.WARN}


def test_a_server_that_is_slow_to_accept_is_no_late_client() -> None:
    """40 ms until each request was sent, of which the other side took all but 0.1: the lag is its own affair."""
    slow = [streamed(i, i * 100.0, ttft_ms=120, lag_ms=40.0, accepting_ns=39_900_000) for i in range(600)]
    assert judged(slow).verdict is Level.VALID
    half = [streamed(i, i * 100.0, ttft_ms=120, lag_ms=40.0, accepting_ns=20_000_000) for i in range(600)]
    assert "client_late" in codes(judged(half))


@pytest.mark.parametrize(("moved", "level"), [(20, False), (30, True)])
def test_ten_seconds_that_were_sent_later_are_another_load(moved: int, level: bool) -> None:
    """Of the 100 requests due in the second 10 s more than a quarter are sent in the third."""
    records = [
        streamed(i, i * 100.0, ttft_ms=lag + 300, lag_ms=lag)
        for i in range(600)
        for lag in [20_000.5 - i * 100.0 if 200 - moved <= i < 200 else 0.1]
    ]
    found = judged(records)
    assert found.load_failed is level
    assert codes(found)["client_late"] is (Level.INVALID if level else Level.WARN)


def test_a_slow_closed_loop_says_what_load_is_missing() -> None:
    """Latencies count from sent, so that turnaround moves none of them; it takes its share of the cycle."""
    found = judged(closed(20.0), loop="closed", end_s=None)
    reason = only(found, "client_slow")
    assert codes(found) == {"client_slow": Level.WARN}
    assert "took 20.0 ms of each 190 ms" in reason.sentence
    assert "11% less load than 4 users" in reason.sentence
    assert found.level_of("ttft_ms") is Level.VALID
    assert found.level_of("completed_rps") is Level.WARN
    assert judged(closed(3.0), loop="closed", end_s=None).verdict is Level.VALID
    assert judged(closed(100.0), loop="closed", end_s=None).load_failed


def test_first_tokens_read_late_bound_the_number_from_below() -> None:
    """A tenth of the first tokens bear the stamp of the fourth chunk, 30 ms later: the truth lies in between."""
    found = judged(read_late(0.1))
    reason = only(found, "arrivals")
    p95 = next(one for one in reason.effects if (one.metric, one.statistic) == ("ttft_ms", "p95"))
    assert p95.value == pytest.approx(110, abs=3)
    assert p95.low == pytest.approx(82, abs=1)
    assert "10% of the first tokens late" in reason.sentence
    assert found.verdict is Level.WARN


def test_chunks_that_a_server_sends_together_are_no_late_read() -> None:
    """They share a read, and no one kept them waiting."""
    records = read_late(0.5)
    for record in records:
        record.chunk_lag_ns = [0] * len(record.chunk_ns or ())
    assert judged(records).verdict is Level.VALID


def test_times_per_token_hold_what_the_first_token_lost() -> None:
    """Half of all replies of ten tokens begin three gaps late, so that six gaps are left for nine tokens."""
    found = judged(read_late(0.6))
    assert found.level_of("tpot_ms") is Level.WARN
    tpot = next(one for reason in found.reasons for one in reason.effects if one.metric == "tpot_ms")
    assert tpot.high > tpot.value == tpot.low


@pytest.mark.parametrize(
    ("readings", "level"),
    [
        ({"canary_events": 400, "canary_p50_ms": 0.2}, None),
        ({"canary_events": 400, "canary_p50_ms": 6.0}, Level.WARN),
        ({"canary_events": 400, "canary_p50_ms": 30.0}, Level.INVALID),
        ({"canary_events": 0, "canary_p50_ms": 30.0}, None),
        ({"canary_events": 400, "canary_p50_ms": 0.1, "canary_p99_ms": 60.0}, None),
    ],
)
def test_the_self_check_stream_is_judged_by_its_median(readings: dict[str, Any], level: Level | None) -> None:
    """TTFT p50 is 80 ms; the p99 of few events is noise."""
    assert codes(judged(noisy(1), client=readings)).get("arrivals") is level


def test_a_late_loop_counts_where_it_stamps_arrivals_itself() -> None:
    """30 ms at p99 are in the tail of what the loop stamped; the kernel's stamps do not depend on it."""
    noise = {"heartbeat_p99_ms": 60.0, "cpu_share": 0.95, "merged_read_share": 0.5}
    assert judged(noisy(1), client=noise).verdict is Level.VALID
    records = noisy(1)
    for record in records:
        record.clock = "loop"
    reason = only(judged(records, client=noise), "arrivals")
    assert {one.statistic for one in reason.effects} == {"p99"}


@pytest.mark.parametrize(
    ("readings", "words"),
    [
        ({"throttled_periods": 3, "throttled_ms": 40.0}, "its processor quota was used up for 40.0 ms"),
        ({"steal_share": 0.08}, "the hypervisor took 8% of the processors"),
        ({"cpu_peak_share": 0.99}, "its loop used 99% of a core"),
    ],
)
def test_a_machine_that_changed_no_number_is_no_doubt_and_otherwise_the_cause(
    readings: dict[str, Any], words: str
) -> None:
    """Throttling, steal and a busy processor are normal in containers."""
    assert judged(noisy(1), client=readings).verdict is Level.VALID
    assert words in only(judged(late(15.0), client=readings), "client_late").sentence


def test_waiting_for_connections_is_named_as_the_cause() -> None:
    """Requests that had to wait for a handshake leave late."""
    records = [
        changed(one, connected_ns=one.sent_ns) if i % 10 == 0 else one for i, one in enumerate(late(15.0, every=5))
    ]
    assert "60 of 600 requests waited for a new connection" in only(judged(records), "client_late").sentence
    records = [changed(replace(one), retries=1) if one.connected_ns else one for one in records]
    assert "new connection" not in only(judged(records), "client_late").sentence


def test_a_wait_for_a_place_is_no_wait_for_a_connection() -> None:
    """A tenth of the requests waited 15 ms for a place and then had a new connection; another tenth left 40 ms late."""
    late_ms = [{0: 15.0, 5: 40.0}.get(i % 10, 0.05) for i in range(600)]
    records = [streamed(i, i * 100.0, ttft_ms=80.0 + own, lag_ms=own) for i, own in enumerate(late_ms)]
    for one in records[::10]:
        changed(one, connected_ns=one.sent_ns)
    assert "60 of 600 requests waited for a new connection" in only(judged(records), "client_late").sentence
    for one in records[::10]:
        changed(one, held_ns=15 * MS)
    assert "new connection" not in only(judged(records), "client_late").sentence


def test_the_worst_worker_counts() -> None:
    """Of several load processes the worst reading is judged, wherever it stands."""
    workers = [{"canary_events": 300, "canary_p50_ms": 0.2}, {"canary_events": 300, "canary_p50_ms": 9.0}]
    assert "arrivals" in codes(judged(noisy(1), client={"workers": workers}))


def test_a_load_process_that_died_spoils_the_trial() -> None:
    """Its share was not sent from then on, whatever the rows of the others look like."""
    workers = [{"worker": 0, "lost": None}, {"worker": 1, "lost": "it was ended by SIGKILL"}]
    found = judged(noisy(1), client={"workers": workers})
    assert "1 of 2 load processes died: it was ended by SIGKILL." in only(found, "load_missing").sentence
    assert found.load_failed


@pytest.mark.parametrize(
    ("n", "errors", "level"),
    [(600, 0, None), (600, 6, None), (600, 12, Level.WARN), (600, 301, Level.INVALID), (20000, 60, None)],
)
def test_errors_are_a_result_until_most_fail(n: int, errors: int, level: Level | None) -> None:
    """The server's failures are told from 1 % on; with half of them gone nothing is known."""
    records = noisy(1, n)
    records[:errors] = [failed(i, i * 100.0, "http_error", 5) for i in range(errors)]
    assert codes(judged(records, end_s=n / 10)).get("errors") is level


def test_errors_that_a_limit_judges_are_a_note() -> None:
    """With a limit on the error rate the limit decides, and no advice asks for one."""
    records = noisy(1, 600)
    records[:400] = [failed(i, i * 100.0, "http_error", 5) for i in range(400)]
    found = judged(records, limits=["error_rate <= 0.2"])
    assert "errors" not in codes(found)
    (note,) = [one for one in found.notes if one.code == "errors"]
    assert note.advice == "Look at the errors."


def test_when_nothing_succeeded_no_limit_makes_it_valid() -> None:
    """A limit on the error rate judges some failures, not a trial without a single reply."""
    found = judged([failed(i, i * 100.0, "http_error", 5) for i in range(600)], limits=["error_rate <= 1"])
    assert codes(found)["errors"] is Level.INVALID
    assert found.reasons[0].sentence == "600 of 600 measured requests failed: nothing was measured."


def test_a_trial_of_which_the_plan_cancels_every_request_is_not_simply_valid() -> None:
    """Nothing failed, but nothing is known of latencies either."""
    assert codes(judged([failed(i, i * 100.0, "cancelled", 5) for i in range(20)])) == {"errors": Level.WARN}


def test_no_port_left_is_the_clients_own_fault() -> None:
    """A request that this machine could not send is missing, whatever the limit on errors says."""
    records = noisy(1, 600)
    for i in (5, 6):
        records[i] = failed(i, i * 100.0, "connection_error", 1, error="no connection: Too many open files")
    found = judged(records, limits=["error_rate <= 0.5"])
    assert codes(found) == {"load_missing": Level.WARN}
    assert "2 requests failed because this machine had no port" in found.reasons[0].sentence


def test_few_requests_are_no_doubt() -> None:
    """Precision is notation."""
    assert judged(noisy(1, 30)).verdict is Level.VALID


def test_nothing_measured_is_invalid() -> None:
    """A window without a request has no result."""
    assert codes(judged([])) == {"load_missing": Level.INVALID}


@pytest.mark.parametrize("status", ["failed", "interrupted"])
def test_a_trial_that_did_not_end_is_not_the_planned_one(status: str) -> None:
    """Whatever was recorded before; that comes first."""
    found = judged(noisy(1), status=status, reason="the engine exited with signal 9")
    assert found.load_failed
    assert "signal 9" in found.reasons[0].sentence
    assert unmeasured(trial_entry(status=status)).load_failed


def test_what_to_do_about_a_trial_that_did_not_end() -> None:
    """One that never began will fail again unless its cause is gone."""
    never = unmeasured(trial_entry(status="failed", t0_ns=None))
    assert [one.advice for one in never.reasons] == ["Remove the cause, and run it again."]


def test_a_reason_that_ends_a_sentence_gets_no_second_full_stop() -> None:
    """The engine's question stays one."""
    found = judged([], status="failed", reason="did you mean `n_ctx`?")
    assert "The trial failed: did you mean `n_ctx`?" in [reason.sentence for reason in found.reasons]


@pytest.mark.parametrize(
    ("total", "level"), [(40, None), (44, Level.INVALID), (20, Level.INVALID), (80, Level.INVALID)]
)
def test_token_counts_void_what_is_made_of_them_and_nothing_else(total: int, level: Level | None) -> None:
    """Chunk counts of 40 against the engine's total: tokens/s and TPOT are doubted, TTFT is not."""
    records = noisy(1)
    for record in records:
        changed(record, output_tokens=total, requested_output_tokens=total)
    found = judged(records)
    assert codes(found).get("token_counts") is level
    assert found.level_of("output_tokens_per_s") is found.level_of("tpot_ms") is (level or Level.VALID)
    assert found.level_of("ttft_ms") is found.level_of("e2e_ms") is Level.VALID
    assert not found.load_failed


def test_more_tokens_than_were_requested_at_most_cannot_be() -> None:
    """Also where no length is fixed and the chunks are not counted."""
    records = noisy(1)
    for record in records:
        changed(record, output_tokens=80, chunk_tokens=None)
    found = judged(records)
    assert "more tokens than requested at most" in only(found, "token_counts").sentence


def test_a_drift_warns_with_the_metric_and_its_size() -> None:
    """An end-to-end time that rises by 40 % over the window depends on when one measures."""
    records = [
        streamed(i, i * 100.0, ttft_ms=100 * (1 + i / 1500) + i % 7, tokens=2, gap_ms=1.0, lag_ms=0) for i in range(600)
    ]
    found = judged(records)
    assert codes(found) == {"not_steady": Level.WARN}
    assert found.reasons[0].metrics == ("ttft_ms", "ttfo_ms", "attainment", "goodput_rps")
    assert "drifted by +3" in found.reasons[0].sentence


def test_overload_says_that_p95_depends_on_the_length() -> None:
    """One request every 100 ms, of which each takes 130 ms of a single slot: the queue grows to the end."""
    ended = 0.0
    records = []
    for i in range(300):
        begin = max(i * 100.0, ended)
        ended = begin + 130.0
        records.append(streamed(i, i * 100.0, ttft_ms=begin - i * 100.0 + 40.0, tokens=10, gap_ms=10.0, lag_ms=0))
    found = judged(records, end_s=30.0)
    assert codes(found) == {"overload": Level.WARN}, "drifting latencies are its consequence"
    assert found.level_of("ttft_ms") is Level.WARN


def test_a_load_that_changes_by_plan_is_not_told_to_be_steady() -> None:
    """Latencies rise with the rate of the steps."""
    records = [streamed(i, i * 100.0, ttft_ms=100 * (1 + i / 100) + i % 7, tokens=2) for i in range(600)]
    assert "not_steady" in codes(judged(records))
    assert "not_steady" not in codes(judged(records, kind="steps"))


def test_a_queue_that_grows_through_the_whole_window_is_no_warm_up() -> None:
    """Though too little is left behind the half of it to see that it goes on."""
    records = [streamed(i, i * 125.0, ttft_ms=300.0 + i * 370.0, tokens=20, gap_ms=10.0) for i in range(120)]
    found = codes(judged(records, end_s=15.0))
    assert "warm_up" not in found
    assert {"not_steady", "overload"} & found.keys()


def test_replies_cut_short_by_a_full_context() -> None:
    """They ended by `length` with fewer tokens than requested; one token less is how some servers count."""
    for number, level in ((5, None), (7, Level.WARN)):
        records = noisy(1, 600)
        for record in records:
            record.requested_output_tokens = 41
        for record in records[:number]:
            record.requested_output_tokens = 100
        found = judged(records)
        assert codes(found).get("lengths") is level
        if level:
            assert "7 replies ended by `length`" in found.reasons[0].sentence


def test_a_load_beyond_the_calibration_is_a_note() -> None:
    """More replies at once, or more chunks per second, than what this machine's client was tried with."""
    records = [streamed(i, i * 100.0, ttft_ms=900, lag_ms=0.0, gap_ms=20 + i / 7) for i in range(600)]

    def notes(client: dict[str, Any], known: CalibrationEntry | None) -> set[str]:
        return noted(judging.judged(trial_of(records, client=client), known))

    for streams, events_per_s, told in ((5, 50.0, True), (512, 1e5, False)):
        known = CalibrationEntry(streams=streams, events_per_s=events_per_s)
        assert ("beyond_calibration" in notes({"connections_opened": 20}, known)) is told
    assert "beyond_calibration" not in notes({}, CalibrationEntry(streams=1, events_per_s=1.0))
    assert "beyond_calibration" not in notes({"connections_opened": 20}, None)


@pytest.mark.parametrize("name", ["open_files", "ports"])
def test_what_may_run_out_is_a_note(name: str) -> None:
    """Until it does, no number is touched."""
    found = judged(noisy(1), client={f"{name}_share": 0.9})
    assert (found.verdict, noted(found)) == (Level.VALID, {name})


def test_the_most_at_once() -> None:
    """Requests of 990 ms every 100 ms: ten at a time."""
    records = [streamed(i, i * 100.0, ttft_ms=900, tokens=10, gap_ms=10) for i in range(100)]
    streams, chunks_per_s = largest_load(read(trial_of(records)).columns.measured)
    assert streams == 10
    assert chunks_per_s == pytest.approx(1000 / 10.89, rel=1e-6)


def test_counts_that_a_reply_cut_short_lacks_say_nothing_of_the_engine() -> None:
    """The usage comes last; only whole replies without it show that the engine does not count. That is a note."""
    cut = replace(streamed(600, 60_000), status="cancelled", token_source="chunks")
    assert noted(judged([*noisy(1), cut])) == set()
    assert noted(judged([*noisy(1), replace(cut, status="ok")])) == {"token_counts"}


def test_turns_behind_a_failed_one_are_errors_and_other_unsent_rows_are_missing() -> None:
    """A conversation that breaks off is the server's doing; a row that the trial owes spoils it, by its share."""
    text = "the conversation was broken off: its turn 1 had failed"
    behind = [Record(request=600 + i, due_ns=60 * S, error=text) for i in range(10)]
    assert codes(judged([*noisy(1), *behind])) == {"errors": Level.WARN}
    owed = Record(request=700, due_ns=60 * S)
    assert codes(judged([*noisy(1), owed])) == {"load_missing": Level.WARN}
    many = [Record(request=700 + i, due_ns=60 * S) for i in range(10)]
    assert codes(judged([*noisy(1), *many])) == {"load_missing": Level.INVALID}


def test_others_on_the_gpus_warn() -> None:
    """What they took from the engine is true of the machine; the numbers are what it reached beside them."""
    assert codes(judged(noisy(1, 400), others_on_gpus=2)) == {"machine": Level.WARN}
    assert codes(judged(noisy(1, 400), others_on_gpus=0)) == {}


def test_a_turn_that_is_not_sent_leaves_its_place_to_another() -> None:
    """Three measured of a closed loop that shall measure three, though a fourth broke off; in an open loop it is one
    too many, for every row there has its place.
    """
    records: list[Record] = [streamed(i, i * 1000.0) for i in range(3)]
    records.append(Record(request=3, due_ns=1_500_000_000, error="the conversation was broken off: its turn 1 failed"))
    in_closed = codes(judged(records, planned={"measure": 3}, loop="closed", end_s=None))
    assert "load_missing" not in in_closed
    assert "load_missing" in codes(judged(records, planned={"measure": 3}))
    assert "load_missing" in codes(judged(records[1:], planned={"measure": 3}, loop="closed", end_s=None))


@pytest.mark.parametrize("status", ["failed", "interrupted"])
def test_what_a_trial_that_was_stopped_did_not_do_is_not_our_fault(status: str) -> None:
    """It was planned, and the trial did not come to it."""
    found = judged(noisy(1, 50), status=status, reason="why", loop="closed", end_s=None, planned={"measure": 100})
    (reason,) = (one for one in found.reasons if "were planned" in one.sentence)
    assert reason.advice == "Run it again."


def test_the_largest_finding_is_told_first() -> None:
    """Prompts cut to a quarter are more than a client that is late by a tenth."""
    records = [changed(one, requested_prompt_tokens=400, prompt_tokens=100) for one in late(8.0)]
    assert [one.code for one in judged(records, prompt_length_source={"default": "tokenizer"}).reasons] == [
        "prompts",
        "client_late",
    ]


@pytest.mark.parametrize("n", [100, 1000, 5000])
def test_healthy_trials_of_any_length_are_valid(n: int) -> None:
    """One request in two hundred meets a hiccup of the load generator of 1 to 6 ms."""
    rng = np.random.default_rng(n)
    records = noisy(2, n)
    for i in np.flatnonzero(rng.random(n) < 0.005):
        lag = int(rng.uniform(1, 6) * MS)
        one = records[i]
        changed(one, sent_ns=(one.due_ns or 0) + lag)
    assert judged(records, end_s=n / 10).verdict is Level.VALID


def test_a_drift_of_fast_numbers_stays_above_zero_and_within_what_is_tolerated() -> None:
    """Growth by a factor of nine has no end below zero; a scenario that tolerates half of it is told nothing."""
    records = [streamed(i, i * 100.0, ttft_ms=20 * 9 ** (i / 600) + i % 3, tokens=40, lag_ms=0) for i in range(600)]
    (effect,) = only(judged(records), "not_steady").effects
    assert effect.low >= 0
    slower = [streamed(i, i * 100.0, ttft_ms=100 * (1 + i / 1500) + i % 7, tokens=2, lag_ms=0) for i in range(600)]
    assert judged(slower, tolerance=0.5).verdict is Level.VALID


@pytest.mark.parametrize("statistic", ["p90", "p99.9"])
def test_limits_on_other_quantiles_are_checked_for_turning(statistic: str) -> None:
    """Two milliseconds on either side of a limit; a factor against a variant is no time."""
    assert "client_late" in codes(judged(late(2.0), limits=[f"ttft_ms {statistic} <= 81ms"]))
    assert "client_late" not in codes(judged(late(0.3, ttft_ms=1.0), limits=["ttft_ms p50 <= 1.1 * base"]))


def test_what_counts_from_a_late_number_is_doubted_with_it() -> None:
    """All requests are late by 15 ms: whether they met the SLO is as doubtful as their TTFT."""
    found = judged(late(15.0))
    assert found.level_of("attainment") is found.level_of("goodput_rps") is Level.WARN
    read = judged(read_late(0.1))
    assert read.level_of("ttft_service_ms") is Level.WARN


def test_turns_of_conversations_that_begin_by_the_plan_are_no_users() -> None:
    """A slow turnaround makes conversations longer; the plan's first turns keep the load, so that it never fails."""
    turns = [
        changed(one, user=None, loop="open" if one.request % 4 == 0 else "closed") for one in closed(100.0, rounds=40)
    ]
    reason = only(judged(turns, loop="partly_open", end_s=None), "client_slow")
    assert (reason.level, "conversations last" in reason.sentence) == (Level.WARN, True)


@pytest.mark.parametrize("limit", ["timeouts <= 5 per 10s", "out_of_memory <= 0 per 5m", "chat.error_rate <= 5%"])
def test_only_a_limit_on_all_errors_judges_them(limit: str) -> None:
    """Others count something else."""
    records = noisy(1, 600)
    records[:594] = [failed(i, i * 100.0, "http_error", 5) for i in range(594)]
    assert judged(records, limits=[limit]).load_failed
