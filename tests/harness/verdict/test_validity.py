"""Validity: what spoils a trial, what only deserves a warning, and what neither."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from harness.analysis.reading import read
from harness.records import Record
from harness.store.manifest import CalibrationEntry, ClientEntry
from harness.verdict.client import largest_load
from harness.verdict.reason import Level, Validity
from harness.verdict.validity import judge, unmeasured
from tests.fabricated import failed, noisy, streamed, trial_entry, trial_of


def judged(records: list[Record], client: dict[str, Any] | None = None, **changes: Any) -> Validity:
    """The validity of a trial with these records."""
    trial = trial_of(records, **changes)
    told = trial.trial.client if client is None else ClientEntry.model_validate(client)
    return judge(trial.trial, read(trial), told)


def codes(validity: Validity) -> dict[str, Level]:
    """Its reasons."""
    return {reason.code: reason.level for reason in validity.reasons}


def test_a_clean_trial_is_valid() -> None:
    """Nothing to complain about gives no reason."""
    assert judged(noisy(1), planned={"measure": 600, "warmup": 0}) == Validity(Level.VALID)


def test_a_missing_record_spoils_the_trial() -> None:
    """Every planned request has one record."""
    assert codes(judged(noisy(1), planned={"measure": 601})) == {"rows_missing": Level.INVALID}


def test_a_doubled_record_spoils_the_trial() -> None:
    """No request has two."""
    records = noisy(1)
    assert codes(judged([*records, records[0]]))["rows_doubled"] is Level.INVALID


@pytest.mark.parametrize(
    ("lag_ms", "level"),
    [(0.1, None), (1.2, Level.WARN), (3.0, Level.WARN), (6.0, Level.INVALID), (40.0, Level.INVALID)],
)
def test_a_late_client_counts_in_proportion(lag_ms: float, level: Level | None) -> None:
    """Lag matters when it is both long and a share of what is measured (ttft p50 is 80 ms)."""
    records = [streamed(i, i * 100.0, ttft_ms=80, lag_ms=lag_ms) for i in range(600)]
    assert codes(judged(records)).get("client_lag") is level


@pytest.mark.parametrize(("late", "level"), [(0, None), (1, Level.WARN), (2, Level.INVALID)])
def test_one_late_request_alone_is_a_warning(late: int, level: Level | None) -> None:
    """A single hiccup in a short trial is told, and spoils nothing; two do."""
    records = [streamed(i, i * 100.0, ttft_ms=80, lag_ms=70.0 if i < late else 0.1) for i in range(20)]
    assert codes(judged(records)).get("client_lag") is level


def test_a_late_client_does_not_matter_for_slow_engines() -> None:
    """Six milliseconds are nothing beside two seconds."""
    records = [streamed(i, i * 100.0, ttft_ms=2000, lag_ms=6.0) for i in range(600)]
    assert "client_lag" not in codes(judged(records))


def test_a_noisy_machine_that_did_not_delay_the_client_only_warns() -> None:
    """A late event loop spoils nothing as long as the kernel stamped the arrivals."""
    noise = {"heartbeat_p99_ms": 30.0, "cpu_share": 0.95, "merged_read_share": 0.5}
    found = judged(noisy(1), noise)
    assert found.verdict is Level.WARN
    assert set(codes(found)) == {"client_heartbeat", "client_cpu", "merged_reads"}


def test_a_reason_that_ends_a_sentence_gets_no_second_full_stop() -> None:
    """The engine's question stays one."""
    found = judged([], status="failed", reason="did you mean `n_ctx`?")
    assert "The trial failed: did you mean `n_ctx`?" in [reason.sentence for reason in found.reasons]


def test_a_late_loop_spoils_stamps_of_its_own() -> None:
    """Without kernel stamps the loop's lateness is in the numbers."""
    records = noisy(1)
    for record in records:
        record.clock = "loop"
    assert codes(judged(records, {"heartbeat_p99_ms": 30.0}))["client_heartbeat"] is Level.INVALID


@pytest.mark.parametrize(("errors", "level"), [(0, None), (3, Level.WARN), (12, Level.INVALID)])
def test_errors_spoil_latencies(errors: int, level: Level | None) -> None:
    """More than one in a hundred is invalid, more than one in a thousand a warning."""
    records = noisy(1, 600)
    records[:errors] = [failed(i, i * 100.0, "http_error", 5) for i in range(errors)]
    assert codes(judged(records)).get("errors") is level


def test_errors_that_a_limit_judges_only_warn() -> None:
    """With a limit on the error rate the gate decides."""
    records = noisy(1, 600)
    records[:60] = [failed(i, i * 100.0, "http_error", 5) for i in range(60)]
    assert codes(judged(records, limits=["error_rate <= 0.2"]))["errors"] is Level.WARN


def test_too_few_requests_warn_and_say_how_many() -> None:
    """A short trial is not invalid; its p95 is a bound."""
    found = judged(noisy(1, 30))
    assert found.verdict is Level.WARN
    assert "needs 72" in found.reasons[0].sentence


def test_nothing_measured_is_invalid() -> None:
    """A window without a request has no result."""
    assert codes(judged([])) == {"nothing_measured": Level.INVALID}


@pytest.mark.parametrize("status", ["failed", "interrupted"])
def test_a_trial_that_broke_off_is_invalid(status: str) -> None:
    """Whatever was recorded before."""
    found = judged(noisy(1), status=status, reason="the engine exited with signal 9")
    assert found.verdict is Level.INVALID
    assert "signal 9" in found.reasons[0].sentence
    assert unmeasured(trial_entry(status=status)).verdict is Level.INVALID


def test_what_to_do_about_a_trial_that_did_not_end() -> None:
    """One that never began will fail again unless its cause is gone; one that was stopped needs no longer window."""
    never = unmeasured(trial_entry(status="failed", t0_ns=None))
    assert [one.advice for one in never.reasons] == ["Remove the cause, and run it again."]
    assert set(codes(judged([], status="interrupted"))) == {"trial_interrupted"}


def test_counts_that_disagree() -> None:
    """Chunk counts 10 % below the engine's total make tokens/s doubtful."""
    records = noisy(1)
    for record in records:
        record.output_tokens = 44
    assert codes(judged(records))["token_counts"] is Level.INVALID


def test_a_drift_warns() -> None:
    """An end-to-end time that rises by a fifth over the window was not steady."""
    records = [
        streamed(i, i * 100.0, ttft_ms=100 * (1 + i / 1500) + i % 7, tokens=2, gap_ms=1.0, lag_ms=0) for i in range(600)
    ]
    assert codes(judged(records)) == {"not_steady": Level.WARN} | {
        code: level for code, level in codes(judged(records)).items() if code == "few_samples"
    }


def test_the_worst_worker_counts() -> None:
    """Of several load processes the worst reading is judged, wherever it stands; counters add up once."""
    workers = [{"heartbeat_p99_ms": 0.2, "connect_errors": 1}, {"heartbeat_p99_ms": 9.0, "connect_errors": 2}]
    found = judged(noisy(1), {"heartbeat_p99_ms": 0.2, "workers": workers})
    assert codes(found) == {"client_heartbeat": Level.WARN, "connect_errors": Level.WARN}
    assert "9.0 ms" in found.reasons[0].sentence
    assert "3 connections" in found.reasons[1].sentence


def test_a_load_process_that_died_spoils_the_trial() -> None:
    """Its share was not sent from then on, whatever the rows of the others look like."""
    workers = [{"worker": 0, "lost": None}, {"worker": 1, "lost": "it was ended by SIGKILL"}]
    (reason,) = judged(noisy(1), {"workers": workers}).reasons
    assert (reason.code, reason.level) == ("worker_lost", Level.INVALID)
    assert "1 of 2 load processes died: it was ended by SIGKILL." in reason.sentence


def test_a_workers_canary_is_judged_by_its_own_events() -> None:
    """Four times a hundred events support no p99 of one of them."""
    one = {"canary_events": 100, "canary_p50_ms": 0.05, "canary_p95_ms": 0.1, "canary_p99_ms": 9.0}
    assert "canary" not in codes(judged(noisy(1), one | {"canary_events": 400, "workers": [one] * 4}))


@pytest.mark.parametrize(
    ("reading", "code"),
    [
        ({"throttled_periods": 3, "throttled_ms": 40.0}, "throttled"),
        ({"steal_share": 0.08}, "steal"),
        ({"open_files_share": 0.9}, "open_files"),
        ({"ports_share": 0.9}, "ports"),
        ({"cpu_peak_share": 0.99}, "client_cpu"),
        ({"chunk_lag_p99_ms": 30.0}, "chunk_lag"),
        ({"equal_gap_share": 0.5}, "equal_gaps"),
    ],
)
def test_what_does_not_show_in_the_lag_only_warns(reading: dict[str, Any], code: str) -> None:
    """Throttling, steal and a busy processor are normal in containers; each comes with what to do about it."""
    found = judged(noisy(1), reading)
    assert codes(found) == {code: Level.WARN}
    assert found.reasons[0].advice


def test_the_time_of_an_engine_in_this_process_is_not_the_clients() -> None:
    """Without a connection the process is busy with the engine; what its loop took still counts."""
    records = noisy(1)
    for record in records:
        record.clock = "loop"
    busy = {"cpu_share": 0.97, "heartbeat_p99_ms": 8.0, "connections_opened": 0}
    assert "client_cpu" not in codes(judged(records, busy | {"cpu_peak_share": 0.03}))
    assert "client_cpu" in codes(judged(records, busy | {"cpu_peak_share": 0.95}))
    assert "client_cpu" in codes(judged(records, busy | {"connections_opened": 4}))


def test_a_busy_loop_that_is_late_and_stamps_arrivals_spoils_them() -> None:
    """With the kernel's stamps the same readings only warn."""
    records = noisy(1)
    busy = {"cpu_peak_share": 0.95, "heartbeat_p99_ms": 8.0}
    assert set(codes(judged(records, busy)).values()) == {Level.WARN}
    for record in records:
        record.clock = "loop"
    assert codes(judged(records, busy))["client_cpu"] is Level.INVALID


@pytest.mark.parametrize(
    ("readings", "level"),
    [
        ({"canary_p99_ms": 0.4}, None),
        ({"canary_p99_ms": 2.0}, Level.WARN),
        ({"canary_p99_ms": 9.0}, Level.INVALID),
        ({"canary_p99_ms": 9.0, "canary_events": 100}, None),
        ({"canary_p95_ms": 9.0, "canary_events": 100}, Level.INVALID),
        ({"canary_p99_ms": 2.0, "canary_p50_ms": 1.5}, Level.INVALID),
        ({"canary_p99_ms": 9.0, "canary_events": 0}, None),
    ],
)
def test_the_canary_is_judged_at_the_quantile_it_supports(readings: dict[str, Any], level: Level | None) -> None:
    """TTFT p50 is 80 ms and the median gap 12 ms; few events support only a p95."""
    usual = {"canary_events": 1200, "canary_p50_ms": 0.05, "canary_p95_ms": 0.1, "canary_p99_ms": 0.2}
    assert codes(judged(noisy(1), usual | readings)).get("canary") is level


def test_a_canary_late_by_little_beside_a_slow_engine_warns() -> None:
    """Nine milliseconds are nothing beside two seconds."""
    records = [streamed(i, i * 100.0, ttft_ms=2000, gap_ms=100 + i / 7) for i in range(600)]
    canary = {"canary_events": 1200, "canary_p50_ms": 0.05, "canary_p99_ms": 9.0}
    assert codes(judged(records, canary))["canary"] is Level.WARN


@pytest.mark.parametrize(("late", "level"), [(0, None), (1, None), (3, Level.WARN), (20, Level.INVALID)])
def test_ten_seconds_that_were_sent_later(late: int, level: Level | None) -> None:
    """Of the 100 requests due in the second 10 s some are sent in the third."""
    records = [
        streamed(i, i * 100.0, ttft_ms=300, lag_ms=(20_000.5 - i * 100.0) if 200 - late <= i < 200 else 0.1)
        for i in range(600)
    ]
    found = {reason.code: reason for reason in judged(records).reasons}
    assert (found["plan_not_kept"].level if "plan_not_kept" in found else None) is level
    if level is not None:
        assert "between 10 s and 20 s" in found["plan_not_kept"].sentence


def test_waiting_for_connections_is_told() -> None:
    """Requests that had to wait for a handshake; the wait is in their lag already."""
    records = [
        streamed(i, i * 100.0, ttft_ms=900, lag_ms=3.0, connected_ns=int((i * 100.0 + 2.9) * 1e6))
        if i < 60
        else streamed(i, i * 100.0, ttft_ms=900)
        for i in range(600)
    ]
    assert codes(judged(records))["new_connections"] is Level.WARN


def test_no_port_left_is_the_clients_own_fault() -> None:
    """A single request that this machine could not send spoils the trial, whatever the limit on errors says."""
    records = noisy(1, 600)
    records[5] = failed(5, 500.0, "connection_error", 1, error="no connection can be opened: Too many open files")
    found = codes(judged(records, limits=["error_rate <= 0.5"]))
    assert found["client_exhausted"] is Level.INVALID


def test_when_nothing_succeeded_no_limit_makes_it_valid() -> None:
    """A limit on the error rate judges some failures, not a trial without a single reply."""
    records = [failed(i, i * 100.0, "http_error", 5) for i in range(600)]
    found = judged(records, limits=["error_rate <= 1"])
    assert codes(found)["nothing_succeeded"] is Level.INVALID
    assert found.verdict is Level.INVALID


def test_a_trial_of_which_the_plan_gave_up_every_request_is_not_simply_valid() -> None:
    """Nothing failed, but nothing is known of latencies either."""
    found = judged([failed(i, i * 100.0, "cancelled", 5) for i in range(20)])
    assert codes(found) == {"all_given_up": Level.WARN}


@pytest.mark.parametrize(("end_s", "words"), [(60.0, "times as long"), (None, "Measure with about")])
def test_how_to_measure_more(end_s: float | None, words: str) -> None:
    """A load that ends with a number of requests cannot be prolonged; it gets more of them."""
    records = noisy(1, 30)
    (reason,) = [one for one in judged(records, end_s=end_s).reasons if one.code == "few_samples"]
    assert words in reason.advice


def test_more_time_does_not_make_a_spike_larger() -> None:
    """One spike is one observation: it is repeated, or made of more requests."""
    spike = {"first_s": 1.0, "length_s": 0.0, "every_s": None}
    (reason,) = [one for one in judged(noisy(1, 30), bursts=spike).reasons if one.code == "few_samples"]
    assert "Repeat the spike" in reason.advice
    assert "times as long" not in reason.advice


def test_a_load_that_changes_by_plan_is_not_told_to_be_steady() -> None:
    """Latencies rise with the rate of the steps."""
    records = [streamed(i, i * 100.0, ttft_ms=100 * (1 + i / 100) + i % 7, tokens=2) for i in range(600)]
    assert "not_steady" in codes(judged(records))
    assert "not_steady" not in codes(judged(records, kind="steps"))


def test_replies_cut_short_by_a_full_context() -> None:
    """They ended by `length` with fewer tokens than asked for; one token less is how some servers count."""
    records = noisy(1, 600)
    for record in records[:7]:
        record.requested_output_tokens = 100
    for record in records[7:]:
        record.requested_output_tokens = 41
    found = {reason.code: reason for reason in judged(records).reasons}
    assert found["cut_short"].level is Level.WARN
    assert "7 replies" in found["cut_short"].sentence


def test_a_load_beyond_the_calibration_is_told() -> None:
    """More replies at once, or more chunks per second, than what this machine's client was tried with."""
    records = [streamed(i, i * 100.0, ttft_ms=900, lag_ms=0.0, gap_ms=20 + i / 7) for i in range(600)]
    trial = trial_of(records)
    client = ClientEntry(connections_opened=20)
    for streams, events_per_s, told in ((5, 50.0, True), (512, 1e5, False)):
        known = CalibrationEntry(streams=streams, events_per_s=events_per_s)
        found = codes(judge(trial.trial, read(trial), client, known))
        assert ("beyond_calibration" in found) is told
    little = CalibrationEntry(streams=1, events_per_s=1.0)
    assert "beyond_calibration" not in codes(judge(trial.trial, read(trial), ClientEntry(), little))
    assert "beyond_calibration" not in codes(judge(trial.trial, read(trial), client, None))


def test_the_most_at_once() -> None:
    """Requests of 990 ms every 100 ms: ten at a time."""
    records = [streamed(i, i * 100.0, ttft_ms=900, tokens=10, gap_ms=10) for i in range(100)]
    streams, chunks_per_s = largest_load(read(trial_of(records)).columns.measured)
    assert streams == 10
    assert chunks_per_s == pytest.approx(1000 / 10.89, rel=1e-6)


def test_counts_that_a_reply_cut_short_lacks_say_nothing_of_the_engine() -> None:
    """The usage comes last; only whole replies without it show that the engine does not count."""
    cut = replace(streamed(600, 60_000), status="cancelled", token_source="chunks")
    assert codes(judged([*noisy(1), cut])) == {}
    assert codes(judged([*noisy(1), replace(cut, status="ok")])) == {"tokens_are_chunks": Level.WARN}


def test_turns_behind_a_failed_one_are_a_warning_and_other_unsent_rows_are_not() -> None:
    """A conversation that breaks off is the server's doing; a row that the trial owes spoils it."""
    behind = Record(request=600, due_ns=60_000_000_000, error="the conversation was broken off: its turn 1 had failed")
    found = judged([*noisy(1), behind])
    assert codes(found) == {"broken_off": Level.WARN}
    owed = Record(request=601, due_ns=60_000_000_000)
    assert codes(judged([*noisy(1), behind, owed])) == {"broken_off": Level.WARN, "not_sent": Level.INVALID}


def test_others_on_the_gpus_only_warn() -> None:
    """What they took from the engine is true of the machine; the numbers are what it reached beside them."""
    assert codes(judged(noisy(400), others_on_gpus=2))["others_on_gpus"] is Level.WARN
    assert "others_on_gpus" not in codes(judged(noisy(400), others_on_gpus=0))


def test_a_server_that_is_slow_to_accept_is_no_late_client() -> None:
    """40 ms until each request was sent, of which the other side took all but 0.1: the lag is its own affair."""
    records = [streamed(i, i * 100.0, ttft_ms=80, lag_ms=40.0, accepting_ns=39_900_000) for i in range(600)]
    assert "client_lag" not in codes(judged(records))
    half = [streamed(i, i * 100.0, ttft_ms=80, lag_ms=40.0, accepting_ns=20_000_000) for i in range(600)]
    assert codes(judged(half))["client_lag"] is Level.INVALID


def test_a_turn_that_is_not_sent_leaves_its_place_to_another() -> None:
    """Three measured of a closed loop that shall measure three, though a fourth broke off; in an open loop it is one
    too many, for every row there has its place.
    """
    records: list[Record] = [streamed(i, i * 1000.0) for i in range(3)]
    records.append(Record(request=3, due_ns=1_500_000_000, error="the conversation was broken off: its turn 1 failed"))
    closed = codes(judged(records, planned={"measure": 3}, loop="closed", end_s=None))
    assert "rows_missing" not in closed
    assert closed["broken_off"] is Level.WARN
    assert codes(judged(records, planned={"measure": 3}))["rows_missing"] is Level.INVALID
    fewer = codes(judged(records[1:], planned={"measure": 3}, loop="closed", end_s=None))
    assert fewer["rows_missing"] is Level.INVALID


@pytest.mark.parametrize("status", ["failed", "interrupted"])
def test_what_a_trial_that_was_stopped_did_not_do_is_not_our_fault(status: str) -> None:
    """It was planned, and the trial did not come to it."""
    found = judged(noisy(1, 50), status=status, reason="why", loop="closed", end_s=None, planned={"measure": 100})
    (reason,) = (one for one in found.reasons if one.code == "rows_missing")
    assert reason.advice == "It broke off; what was measured before is here."
