"""What a display is told, and when a server counts as silent."""

from __future__ import annotations

from typing import Any

from harness.progress import Progress
from harness.records import Loop, Record, Status
from harness.workload import Window

S = 1_000_000_000


class Planned:
    """As much of a schedule as progress needs."""

    loop = Loop.OPEN
    count = 100
    continues = False
    window = Window(2 * S, 10 * S)


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
