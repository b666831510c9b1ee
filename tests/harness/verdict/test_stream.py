"""Streams: replies that something held back, and a stall that decides the tail."""

from __future__ import annotations

import pytest

from harness.records import Record
from harness.verdict.reason import Level
from tests.fabricated import streamed
from tests.judged import codes
from tests.judged import judged_records as judged


def test_a_proxy_that_holds_the_stream_back_is_found_out() -> None:
    """All tokens come within a hundredth of the end-to-end time; TTFT and TPOT are marked, E2E is not."""
    held = [streamed(i, i * 100.0, ttft_ms=360.0, tokens=32, gap_ms=0.01, chunk_read=[0] * 32) for i in range(100)]
    found = judged(held)
    assert codes(found) == {"not_streamed": Level.WARN}
    assert found.level_of("ttft_ms") is found.level_of("tpot_ms") is Level.WARN
    assert found.level_of("e2e_ms") is Level.VALID
    short = [streamed(i, i * 100.0, ttft_ms=360.0, tokens=4, gap_ms=0.01, chunk_read=[0] * 4) for i in range(100)]
    assert judged(short).reasons == ()


def test_a_fast_stream_behind_a_long_queue_is_streamed() -> None:
    """Tokens within a hundredth of the end-to-end time that each came in a read of its own."""
    waited = [streamed(i, i * 100.0, ttft_ms=3600.0, tokens=32, gap_ms=0.5) for i in range(100)]
    assert "not_streamed" not in codes(judged(waited, end_s=10.0))


def test_short_replies_are_in_one_piece_only_if_all_tokens_came_at_once() -> None:
    """A time of 0 between tokens is no server's; close ones are those of a fast server."""
    at_once, close = (
        [streamed(i, i * 100.0, ttft_ms=9.0, tokens=32, gap_ms=gap, chunk_read=[0] * 32) for i in range(100)]
        for gap in (0, 0.01)
    )
    found = judged(at_once)
    assert codes(found) == {"not_streamed": Level.WARN}
    assert found.level_of("tpot_ms") is Level.WARN
    assert judged(close).verdict is Level.VALID


def test_streams_behind_a_long_queue_are_not_in_one_piece() -> None:
    """All tokens within 1 % of the end-to-end time, and 10 ms apart."""
    queued = [streamed(i, i * 100.0, ttft_ms=23_000.0 + i % 7, tokens=20, gap_ms=10.0) for i in range(100)]
    assert "not_streamed" not in codes(judged(queued))


def frozen(own_lag: bool, every_ms: float = 20.0) -> list[Record]:
    """50 requests a second, and no token from 5 s to 7 s; the requests due then leave late if it is our own doing."""
    records = []
    for i in range(int(12_000 / every_ms)):
        due = i * every_ms
        until = 7000.0 if 4950.0 <= due < 7000.0 else 0.0
        ttft = max(50.0, until - due + 50.0)
        lag = max(0.0, until - due) if own_lag else 0.0
        records.append(streamed(i, due, ttft_ms=ttft, tokens=4, gap_ms=5.0, lag_ms=lag))
    return records


def test_one_stall_that_decides_the_tail_is_told() -> None:
    """The server stood still for 2 s: p95 without and with that one event."""
    found = judged(frozen(own_lag=False), end_s=12.0)
    assert found.reasons[0].code == "stall"
    assert "decides the tail" in found.reasons[0].sentence
    p95 = next(one for one in found.reasons[0].effects if (one.metric, one.statistic) == ("ttft_ms", "p95"))
    assert p95.low == pytest.approx(50.0)
    assert p95.value > 1000
    assert "stall" not in codes(judged(frozen(own_lag=True), end_s=12.0))


def test_a_stall_between_few_requests_is_told() -> None:
    """Times without any request in flight are no silences, and those that came during the stall waited for it."""
    found = judged(frozen(own_lag=False, every_ms=150.0), end_s=12.0)
    assert found.reasons[0].code == "stall"
