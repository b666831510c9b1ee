"""Progress for a display, and the rule for a silent server."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from harness.drivers.progress import Progress, together
from harness.records import Loop, Record, Status
from harness.schedule.timing import Window
from tests.plans import schedule_of

S = 1_000_000_000


class Planned:
    """Minimal schedule for progress."""

    loop = Loop.OPEN
    to_be_done = 100
    window = Window(2 * S, 10 * S)
    due_ns = np.arange(100) * S // 10


class Hands:
    """A clock that is set by hand, in seconds."""

    def __init__(self, at_s: float = 0.0) -> None:
        self.at_s = at_s

    def __call__(self) -> int:
        """Now."""
        return round(self.at_s * S)


def progress_after(*records: Record) -> Progress:
    """A progress that has seen these records."""
    progress = Progress(Planned())  # type: ignore[arg-type]
    for record in records:
        progress.add(record)
    return progress


def done(number: int, at_s: float, status: str = Status.OK, **fields: Any) -> Record:
    """A record that ended at a time."""
    return Record(number, due_ns=round((at_s - 0.5) * S), done_ns=round(at_s * S), status=status, **fields)


def test_counts_phase_and_the_median_of_recent_first_tokens() -> None:
    """Facts follow the records."""
    facts = progress_after(
        done(0, 1), done(1, 3, first_token_ns=round(2.6 * S)), done(2, 4, status=Status.HTTP_ERROR)
    ).facts()
    assert (facts["done"], facts["failed"], facts["phase"], facts["planned"]) == (3, 1, "measure", 100)
    assert round(facts["ttft_ms"]) == 100


@pytest.mark.parametrize(
    ("load", "planned"),
    [
        ({"rate": 10, "requests": 40, "arrivals": "constant", "warmup": "2s"}, 60),
        ({"users": 3, "requests": 40}, 40),
        ({"users": 3, "requests": 40, "warmup": "2s"}, None),
        ({"rate": 10, "duration": "4s"}, None),
    ],
)
def test_load_that_goes_on_is_no_work_to_be_done(load: dict[str, Any], planned: int | None) -> None:
    """Planned are the requests of the warm-up and the measured ones, where their number is known before."""
    assert Progress(schedule_of(kind="sustained", **load)).facts()["planned"] == planned


def test_rates_cover_the_last_seconds_beside_the_planned_rate() -> None:
    """Two a second are answered where ten are offered; a second of silence brings the rate down, and it is noticed."""
    clock = Hands(1000.0)
    progress = Progress(Planned(), clock)  # type: ignore[arg-type]
    assert progress.facts()["completed_rps"] is None
    for number in range(6):
        clock.at_s = 1000.5 + number / 2
        progress.add(done(number, 0.5 + number / 2, output_tokens=20))
        facts = progress.facts()
    assert (facts["completed_rps"], facts["tokens_per_s"]) == (2.0, 40.0)
    assert (facts["elapsed_s"], facts["due"], facts["offered_rps"]) == (3.0, 31, 10.0)
    for clock.at_s in (1005.0, 1007.0, 1009.0):
        facts = progress.facts()
    assert facts["completed_rps"] == 0.0
    assert facts["elapsed_s"] == 9.0


def test_reasoning_that_is_kept_from_us_is_no_divisor() -> None:
    """300 thoughts that nobody saw and 11 tokens 50 ms apart."""
    times = {"first_token_ns": S, "first_answer_ns": S, "last_token_ns": S + S // 2}
    facts = progress_after(done(0, 2, output_tokens=311, reasoning_tokens=300, **times)).facts()
    assert facts["tpot_ms"] == pytest.approx(50.0)


def test_first_tokens_count_from_where_latencies_begin() -> None:
    """From due by the plan, from sent where a request follows a reply."""
    times = {"sent_ns": round(1.6 * S), "first_token_ns": 2 * S}
    for loop, expected in ((Loop.OPEN, 500.0), (Loop.CLOSED, 400.0)):
        assert progress_after(done(0, 2, loop=loop, **times)).facts()["ttft_ms"] == pytest.approx(expected)


def test_own_lags_and_the_last_failure_are_reported() -> None:
    """The largest lag of sending (less what the server took to accept it) and of reading, and what went wrong last, in
    words; a lag not known is none.
    """
    facts = progress_after(
        done(0, 1, sent_ns=round(0.9004 * S), accepting_ns=400_000_000, chunk_lag_ns=[200_000, 5_000_000]),
        done(1, 2, sent_ns=round(1.5001 * S), chunk_lag_ns=[-1]),
        done(2, 3, status=Status.TIMEOUT),
        done(3, 4, status=Status.HTTP_ERROR, http_status=503),
    ).facts()
    assert (round(facts["send_lag_ms"], 3), round(facts["read_lag_ms"], 3)) == (0.4, 0.2)
    assert (facts["failed"], facts["last_failure"]) == (2, "HTTP 503")
    facts = progress_after(done(0, 1, status=Status.CONNECTION_ERROR, error="refused\nby " + "x" * 99)).facts()
    assert facts["last_failure"].startswith("refused by xxx")
    assert len(facts["last_failure"]) == 60


def test_several_who_share_a_plan_are_one() -> None:
    """Counts and rates add up, the worst lag counts, the plan is everybody's."""
    one = progress_after(done(0, 3, output_tokens=5, first_token_ns=3 * S - 40_000_000, last_token_ns=3 * S)).facts()
    other = progress_after(done(1, 1, status=Status.EMPTY)).facts()
    both = together([one | {"completed_rps": 2.0, "offered_rps": 9.0}, other | {"offered_rps": 10.0}])
    assert (both["done"], both["failed"], both["phase"]) == (2, 1, "measure")
    assert (both["completed_rps"], both["offered_rps"], both["tpot_ms"]) == (2.0, 10.0, 10.0)
    assert both["last_failure"] == "an empty reply"
    assert together([]) == {}


def test_a_server_that_stays_away_is_silent_since_the_first_failure() -> None:
    """Ten refused connections up to the end are a reason; the moment is the first one's."""
    refused = [done(n, n, status=Status.CONNECTION_ERROR, error="connection refused") for n in range(3, 13)]
    silence = progress_after(done(0, 1), *refused).silence()
    assert silence == ("the server could not be reached from 3.0 s on to the end (10 requests): connection refused")


def test_a_server_that_comes_back_is_not_silent() -> None:
    """A success after the failures ends the silence, and so do too few failures."""
    refused = [done(n, n, status=Status.CONNECTION_ERROR, error="refused") for n in range(3, 13)]
    assert progress_after(*refused, done(50, 20)).silence() is None
    assert progress_after(done(0, 1), refused[0]).silence() is None


def test_a_server_that_was_never_there_is_silent_however_few_requests() -> None:
    """Three requests, none of which got a connection, are enough."""
    refused = [done(n, n + 1, status=Status.CONNECTION_ERROR, error="refused") for n in range(3)]
    assert "(3 requests)" in str(progress_after(*refused).silence())
