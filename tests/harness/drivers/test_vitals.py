"""Self-measurement of the load generator."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from harness.drivers.base import DriveReport
from harness.drivers.vitals import Seconds, Thinned, Vitals
from tests.fabricated import MS, noisy, streamed


@given(st.lists(st.integers(-1, 10**9), max_size=50))
def test_unknown_lags_are_left_out(values: list[int]) -> None:
    """-1 stands for a lag that is not known, and is no lag."""
    thinned = Thinned()
    thinned.extend(values)
    known = [value for value in values if value >= 0]
    found = thinned.percentile_ms(99, least=0)
    assert (found is None) == (not known)
    assert found is None or min(known) <= round(found * MS) <= max(known)


def test_a_second_is_read_once() -> None:
    """Values appear after a second: CPU time, open files and ports."""
    seconds = Seconds()
    start = seconds._wall_ns
    seconds.look(start + 999 * MS)
    assert seconds.cpu_peak is None
    seconds.look(start + 1000 * MS)
    assert seconds.cpu_peak is not None
    assert seconds.cpu_peak >= 0


def test_what_began_before_the_trial_is_not_counted() -> None:
    """Connections opened before T0 are not those of the window."""
    report = DriveReport(t0_ns=0, planned=1, connections_opened=5)
    vitals = Vitals()
    vitals.begin(report)
    report.connections_opened = 8
    for record in [*noisy(1, 20), streamed(99, 1.0, lag_ms=3.0)]:
        vitals.add(record)
    vitals.fill()
    assert report.connections_in_window == 3
    assert report.send_lag_max_ms == 3.0
    assert report.chunk_lag_p99_ms == 0.0
    assert report.steal_share is None or 0 <= report.steal_share <= 1
