"""Bursts over a server whose queue arithmetic tells, in virtual time: 5 requests a second, one after the other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness.records import Phase, Status
from tests.driven import driven_on, results_on, simulated
from tests.plans import exact_schedule, load_of
from tests.stored import KEY

pytestmark = pytest.mark.slow

FIVE_A_SECOND = {"ttft_ms": 200, "tpot_ms": 0, "max_batch": 1}
TEN_A_SECOND = {"ttft_ms": 100, "tpot_ms": 0, "max_batch": 1}


def taken(path: Path, server: dict[str, Any], **load: Any) -> list[dict[str, Any]]:
    """What is said of each burst of a load."""
    load = {"kind": "burst", "arrivals": "constant", "timeout": "400s", **load}
    results = results_on(path, simulated(**server), exact_schedule(1, **load), bursts=load_of(**load).burst_spans)
    found: list[dict[str, Any]] = results.facts[KEY]["bursts"]["taken"]
    return found


def test_a_spike_that_outlasts_the_trial_was_not_drained(tmp_path: Path) -> None:
    """300 over 4/s leave 1/s to work them off, so that it takes 300 s; after a minute nothing more is measured, and
    what is cut off when the last of it has ended, at 108 s, neither drained the queue nor failed.
    """
    spike = {"requests": 300, "within": "1s", "at": "2s"}
    (one,) = taken(tmp_path, FIVE_A_SECOND, rate=4, spike=spike, duration="60s")
    assert (one["drained_s"], one["recovered_s"], one["errors"]) == (None, None, 0)
    assert one["requests"] == 304
    records, _ = driven_on(
        simulated(**FIVE_A_SECOND),
        exact_schedule(1, kind="burst", arrivals="constant", timeout="400s", rate=4, spike=spike, duration="60s"),
    )
    assert max(one.done_ns or 0 for one in records if one.phase == Phase.MEASURE) == pytest.approx(108e9, abs=1e9)
    cut_off = {one.status for one in records if one.phase == Phase.COOLDOWN}
    assert cut_off == {Status.UNFINISHED}


def test_a_spike_that_is_worked_off_is_drained_when_theory_says(tmp_path: Path) -> None:
    """60 over 4/s at 10/s leave 6/s: of the burst's second 10 are done at its end, the other 54 take 9 s."""
    spike = {"requests": 60, "within": "1s", "at": "10s"}
    (one,) = taken(tmp_path, TEN_A_SECOND, rate=4, spike=spike, duration="60s")
    assert one["requests"] == 64
    assert one["errors"] == 0
    assert one["drained_s"] == pytest.approx(54 / 6, abs=0.5)


def test_a_burst_that_reaches_beyond_the_window_is_not_listed(tmp_path: Path) -> None:
    """20/s for 5 s at 7.5 and 27.5 s of 30: of the second only a half would be measured. The first leaves 75 at 5/s
    over 1/s, which take 18.75 s, and the next one comes 15 s after it: not drained.
    """
    shape = {"rate": 1, "burst_rate": 20, "burst_for": "5s", "every": "20s", "duration": "30s"}
    (one,) = taken(tmp_path, FIVE_A_SECOND, **shape)
    assert (one["start_s"], one["requests"], one["errors"], one["drained_s"]) == (7.5, 100, 0, None)


def test_bursts_that_are_worked_off_in_time(tmp_path: Path) -> None:
    """At 10/s each leaves 50, which take 50 / 9 s over 1/s; all that lie in the window are listed."""
    shape = {"rate": 1, "burst_rate": 20, "burst_for": "5s", "every": "20s", "duration": "60s"}
    found = taken(tmp_path, TEN_A_SECOND, **shape)
    assert [one["start_s"] for one in found] == [7.5, 27.5, 47.5]
    for one in found:
        assert (one["requests"], one["errors"]) == (100, 0)
        assert one["drained_s"] == pytest.approx(50 / 9, abs=0.5)


@pytest.mark.parametrize(("at", "fits"), [("20s", True), ("20500ms", False), ("29s", False)])
def test_a_spike_must_be_over_before_the_window_is(at: str, fits: bool) -> None:
    """A spike that ends at or after the end of the measurement is refused, with the fix."""
    load = {"kind": "burst", "rate": 1, "duration": "30s", "spike": {"requests": 100, "within": "10s", "at": at}}
    if fits:
        assert load_of(**load).kind == "burst"
    else:
        with pytest.raises(ValueError, match="into the measurement, at or after its end; lengthen `duration`"):
            load_of(**load)
