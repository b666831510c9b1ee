"""Bursts: what is said of each follows from when requests were due and when they ended."""

from __future__ import annotations

import math

import numpy as np
import pytest
from pydantic import ValidationError

from harness.analysis.bursts import bursts_of
from harness.analysis.reading import read
from harness.records import Phase, Record, Status
from harness.verdict.starts import burst_reasons
from tests.fabricated import MS, changed, failed, streamed, trial_of
from tests.plans import load_of


def queue(due_ms: list[float], service_ms: float) -> list[Record]:
    """Requests at a server that takes them one after the other; the first token comes at the end."""
    records, free = [], 0.0
    for number, due in enumerate(due_ms):
        free = max(free, due) + service_ms
        records.append(streamed(number, due, ttft_ms=free - due, tokens=1))
    return records


def test_a_lone_spike_is_drained_when_the_last_has_ended() -> None:
    """Twenty at once at a server that takes 100 ms for each: 20 wait, 2 s to drain; there is no before to return to."""
    spans = {"first_s": 0.0, "length_s": 0.0, "every_s": None}
    found = bursts_of(read(trial_of(queue([0.0] * 20, 100), bursts=spans, end_s=None)))
    assert found is not None
    (one,) = found["taken"]
    assert (one["requests"], one["backlog_peak"], one["backlog_before"], one["errors"]) == (20, 20, 0, 0)
    assert one["drained_s"] == pytest.approx(2.0)
    assert one["recovered_s"] is None


def test_a_spike_over_a_base_rate() -> None:
    """Five a second for a minute, 50 ms each; 100 more at 30 s take 5 s, and 250 ms of each later second are work, so
    that the queue is empty 20/3 s after: the median TTFT is as before from then on.
    """
    due = sorted([*np.arange(0, 60_000, 200.0).tolist(), *[30_000.1] * 100])
    spans = {"first_s": 30.0001, "length_s": 0.0, "every_s": None}
    found = bursts_of(read(trial_of(queue(due, 50), bursts=spans)))
    assert found is not None
    (one,) = found["taken"]
    assert one["requests"] == 100
    assert one["backlog_before"] == 1
    assert one["backlog_peak"] in (100, 101)
    assert one["drained_s"] == pytest.approx(5.0 / 0.75, abs=0.25)
    assert one["drained_s"] <= one["recovered_s"] + 3.0
    assert one["recovered_s"] == pytest.approx(6.0, abs=3.0)


def test_every_burst_is_told_and_the_mean_of_many() -> None:
    """Ten bursts of 20 requests in 1 s, each drained in the same time; the interval closes on it."""
    due = [k * 10_000 + 4_500 + i * 50.0 for k in range(10) for i in range(20)]
    spans = {"first_s": 4.5, "length_s": 1.0, "every_s": 10.0}
    found = bursts_of(read(trial_of(queue(due, 100), bursts=spans, end_s=100.0)))
    assert found is not None
    assert [one["start_s"] for one in found["taken"]] == [4.5 + 10 * k for k in range(10)]
    assert {one["requests"] for one in found["taken"]} == {20}
    assert [one["drained_s"] for one in found["taken"]] == pytest.approx([1.0] * 10)
    assert found["drained_s"] == pytest.approx([1.0, 1.0, 1.0])


def test_a_burst_that_is_not_drained_before_the_next() -> None:
    """Its time is not known, and there is no mean."""
    due = [k * 2_000 + 500 + i * 50.0 for k in range(9) for i in range(20)]
    spans = {"first_s": 0.5, "length_s": 1.0, "every_s": 2.0}
    found = bursts_of(read(trial_of(queue(due, 200), bursts=spans)))
    assert found is not None
    assert found["taken"][0]["drained_s"] is None
    assert found["drained_s"] is None


def test_errors_belong_to_the_burst_in_which_they_were_due() -> None:
    """Three of those due in the burst failed."""
    records = queue([i * 100.0 for i in range(100)], 10)
    records[50:53] = [failed(i, i * 100.0, "http_error", 5) for i in range(50, 53)]
    spans = {"first_s": 5.0, "length_s": 1.0, "every_s": None}
    found = bursts_of(read(trial_of(records, bursts=spans)))
    assert found is not None
    assert (found["taken"][0]["errors"], found["taken"][0]["requests"]) == (3, 10)


def cut_off(records: list[Record], window_end_ms: float, at_ms: float | None = None) -> list[Record]:
    """What fell due behind the window is cooldown; what of it had not ended when the trial was over is cut off."""
    behind = [one for one in records if (one.due_ns or 0) >= window_end_ms * MS]
    before = [one for one in records if (one.due_ns or 0) < window_end_ms * MS]
    over_ns = max(one.done_ns or 0 for one in before) if at_ms is None else round(at_ms * MS)
    for record in behind:
        record.phase = Phase.COOLDOWN
        if (record.done_ns or 0) > over_ns:
            changed(record, status=Status.UNFINISHED, done_ns=over_ns, first_token_ns=None, chunk_ns=None)
    return [one for one in records if (one.due_ns or 0) < over_ns]


@pytest.mark.parametrize(("to_the_end", "drained_s"), [(True, 299.1), (False, None)])
def test_what_is_cut_off_at_the_end_has_not_ended(to_the_end: bool, drained_s: float | None) -> None:
    """300 more over 4/s at a server that takes 200 ms for each: a request a second of the backlog goes, so that 299.1 s
    pass until it is drained. A trial whose last measured request ends before has not seen it, and none of its own
    cutting is an error.
    """
    due = sorted([*np.arange(0, 400_000, 250.0).tolist(), *[10_100.0] * 300])
    spans = {"first_s": 10.1, "length_s": 0.0, "every_s": None}
    records = queue(due, 200)
    records = cut_off(records, 60_000, 500_000 if to_the_end else None)
    found = bursts_of(read(trial_of(records, bursts=spans)))
    assert found is not None
    (one,) = found["taken"]
    assert (one["requests"], one["errors"], one["backlog_before"]) == (300, 0, 1)
    assert one["drained_s"] == (None if drained_s is None else pytest.approx(drained_s))


def test_a_burst_that_reaches_beyond_the_window_is_not_told() -> None:
    """A base of 1/s and 20/s for 5 s every 40 s, at a server of 5/s: 76 are left at the end of each burst and 4/s of
    them go, 19 s; of the two bursts within 100 s one is told where the second's end is not measured, and of the 100
    errors that the cut-off would be, none.
    """
    due = [i * 1000.0 for i in range(17)]
    for begun in (17_500.0, 57_500.0):
        due += [begun + i * 50.0 for i in range(100)]
        due += [begun + 5_000 + i * 1000.0 for i in range(35)]
    spans = {"first_s": 17.5, "length_s": 5.0, "every_s": 40.0}
    for window_end_s, told in ((62.5, 2), (62.4, 1)):
        records = cut_off(queue(due, 200), window_end_s * 1000)
        found = bursts_of(read(trial_of(records, bursts=spans, end_s=window_end_s)))
        assert found is not None
        assert [one["start_s"] for one in found["taken"]] == [17.5, 57.5][:told]
        assert [one["errors"] for one in found["taken"]] == [0, 0][:told]
        assert found["taken"][0]["requests"] == 100
        assert found["taken"][0]["drained_s"] == pytest.approx(18.75, abs=0.25)


def test_errors_that_are_not_ours_stay_errors() -> None:
    """A measured request that did not end in time, and one of the cooldown that the server refused."""
    records = queue([i * 100.0 for i in range(100)], 10)
    records[50] = failed(50, 5000, Status.UNFINISHED, 5000)
    records[51] = failed(51, 5100, Status.REJECTED, 5, phase=Phase.COOLDOWN)
    records[52] = failed(52, 5200, Status.UNFINISHED, 4800, phase=Phase.COOLDOWN)
    spans = {"first_s": 5.0, "length_s": 1.0, "every_s": None}
    found = bursts_of(read(trial_of(records, bursts=spans)))
    assert found is not None
    assert (found["taken"][0]["errors"], found["taken"][0]["requests"]) == (2, 10)


@pytest.mark.parametrize(("at", "within"), [("25s", "10s"), ("30s", "1ms"), ("0s", "31s"), ("30s", "0s")])
def test_a_spike_that_would_not_be_measured_to_its_end_is_refused(at: str, within: str) -> None:
    """A part of it would fall due behind `duration`; one that ends with it is taken."""
    spike = {"requests": 100, "at": at, "within": within}
    load = {"kind": "burst", "rate": 1, "duration": "30s"}
    with pytest.raises(ValidationError, match="into the measurement, at or after its end"):
        load_of(spike=spike, **load)
    assert load_of(spike=spike | {"at": "20s", "within": "10s"}, **load).spike.within_s == 10.0


def test_loads_without_bursts_have_none() -> None:
    """Neither their entry nor their facts."""
    assert load_of(kind="sustained", rate=1, duration="10s").burst_spans is None
    assert bursts_of(read(trial_of(queue([0.0, 1.0], 1)))) is None


def test_where_the_bursts_of_a_load_are() -> None:
    """Bursts stand in the middle of their period, after the warm-up; a spike at its time after the warm-up."""
    bursts = load_of(kind="burst", rate=1, burst_rate=8, burst_for="2s", every="10s", duration="60s", warmup="5s")
    spike = load_of(
        kind="burst", rate=1, spike={"requests": 9, "within": "1s", "at": "7s"}, duration="60s", warmup="5s"
    )
    assert bursts.burst_spans == {"first_s": 9.0, "length_s": 2.0, "every_s": 10.0}
    assert spike.burst_spans == {"first_s": 12.0, "length_s": 1.0, "every_s": None}
    assert not math.isnan(spike.warmup_s)


@pytest.mark.parametrize(("end_s", "into_s"), [(20, None), (15, None), (17.5, 2.5), (18, None), (7, 2), (4, None)])
def test_a_burst_cut_by_the_window_is_told(end_s: float, into_s: float | None) -> None:
    """Bursts of 3 s every 10 s, the first at 5 s: one that the window does not hold whole is left out, with a word."""
    rows = [streamed(i, i * 100.0) for i in range(int(end_s * 10))]
    window = {"start_ns": 0, "end_ns": int(end_s * 1e9)}
    trial = trial_of(rows, window=window, bursts={"first_s": 5.0, "length_s": 3.0, "every_s": 10.0})
    told = f"The window ends {into_s:g} s into a burst of 3 s, which is left out." if into_s else None
    assert [one.sentence for one in burst_reasons(read(trial))] == ([told] if told else [])
