"""Validity: what spoils a trial, what only deserves a warning, and what neither."""

from __future__ import annotations

from typing import Any

import pytest

from harness.records import Record
from harness.validity import Level, Validity, judge, unmeasured
from tests.fabricated import failed, noisy, streamed, trial_entry, trial_of


def judged(records: list[Record], client: dict[str, Any] | None = None, **changes: Any) -> Validity:
    """The validity of a trial with these records."""
    trial = trial_of(records, **changes)
    return judge(trial.trial, trial.records(), trial.trial["client"] if client is None else client)


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
