"""Calibration: what is concluded, what is kept, what lies beyond it; and the client against the known truth."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from engines.cores import cpu_quota_cores
from harness.cli.examination import trusted_errors
from harness.drivers.base import Control, DriveReport
from harness.drivers.calibration import calibrator, store
from harness.drivers.calibration.calibrator import FULL, QUICK, Ladder, Truth, calibrate, measure, schedule
from harness.drivers.calibration.store import Calibration, RateLevel, StreamLevel, conclude
from harness.drivers.stub import StubServer
from harness.errors import Interrupted
from harness.records import Record, Status
from harness.telemetry.cgroup import Ceilings
from harness.verdict.calibration import NOT_CALIBRATED, beyond, sentence

pytestmark = pytest.mark.slow

MS = 1_000_000


def level(streams: int, *, held: bool = True, error_ms: float = 0.1) -> StreamLevel:
    """A level of a calibration."""
    errors = (error_ms / 2, error_ms, error_ms * 2)
    reason = None if held else "late"
    return StreamLevel(streams, streams, streams * 50.0, *errors, *errors, 0.1, 0.1, 0.0, "kernel", held, reason)


def rate(asked: float, *, held: bool = True) -> RateLevel:
    """A rate of a calibration."""
    return RateLevel(asked, 100, 0.1, 0.2, 0.3, held, None if held else "late")


def concluded(*levels: StreamLevel, rates: tuple[RateLevel, ...] = ()) -> Calibration:
    """What follows from these levels."""
    return conclude(levels, rates, ["a note"], "2026-01-02T03:04:05+00:00")


@pytest.fixture
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A cache folder of the test's own."""
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path))
    return tmp_path


def test_the_largest_load_is_below_every_failure() -> None:
    """A level that held beyond one that failed is luck; one that held at the second try counts."""
    found = concluded(
        level(1), level(32, held=False), level(32, error_ms=0.3), level(128, held=False), level(512), rates=(rate(100),)
    )
    assert (found.streams, found.events_per_s, found.requests_per_s) == (32, 1600, 100)
    assert found.ttft_error_p99_ms == 0.3
    none = concluded(level(1, held=False), rates=(rate(100, held=False),))
    assert (none.streams, none.ttft_error_p99_ms, none.requests_per_s) == (0, None, 0)


def test_it_is_kept_for_this_machine_alone(own_cache: Path) -> None:
    """What was saved is read back the same; for another machine, and from a damaged file, there is none."""
    assert store.cached() is None
    made = concluded(level(1), level(32), rates=(rate(100),))
    path = store.save(made)
    assert path.is_relative_to(own_cache)
    assert store.cached() == made
    assert store.summary_for_runs() == made.summary()
    assert json.dumps(made.summary().stored())
    assert store.cache_path(made.identity | {"kernel": "other"}) != path
    path.write_text("{")
    assert store.cached() is None
    assert store.summary_for_runs() is None


def test_what_lies_beyond_is_said() -> None:
    """Streams and events above what was calibrated give a sentence; less, or what nobody knows, gives none."""
    known = concluded(level(1), level(512)).summary()
    assert beyond(known, 512, 25_600) is None
    assert beyond(None, 4000, 1e6) is None
    assert beyond(known, None, None) is None
    over = beyond(known, 600, 30_000)
    assert over is not None
    assert "600 streams (calibrated up to 512)" in over
    assert "30,000 chunks/s" in over
    assert beyond(known, 1000, 50_000, workers=2) is None
    assert "for each load process" in (beyond(known, 1200, 100, workers=2) or "")


def test_reports_cite_it_in_one_sentence() -> None:
    """With error, loads and date; or what to do where there is none."""
    found = sentence(concluded(level(1, error_ms=0.4), level(600), rates=(rate(2000),)).summary())
    for part in ("0.4 ms", "600 streams", "30,000 chunks/s", "2,000 requests/s", "2026-01-02", "same cores"):
        assert part in found
    assert sentence(None) == NOT_CALIBRATED
    assert "Not even one" in sentence(concluded(level(1, held=False)).summary())


def test_errors_are_those_of_arrivals_and_gaps() -> None:
    """An arrival that is late by 3 ms is wrong by 3 ms, and so are both gaps around it."""
    sent = np.arange(5, dtype=np.int64) * 20 * MS + 7 * MS
    seen = sent + np.asarray([1, 1, 4, 1, 1]) * MS
    truth = Truth([], DriveReport(0, None), [sent, sent], [seen, seen - MS], 0.0)
    assert truth.first_errors_ms().tolist() == [1, 0]
    assert truth.gap_errors_ms().tolist() == [0, 3, 3, 0] * 2
    assert truth.slowdown() == pytest.approx(1)


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({"cpu.max": "150000 100000\n"}, 1.5),
        ({"cpu.max": "max 100000\n"}, None),
        ({"a/cpu.max": "50000 100000\n", "cpu.max": "200000 100000\n"}, 0.5),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({"cpu/a/cpu.cfs_quota_us": "300000\n", "cpu/a/cpu.cfs_period_us": "100000\n"}, 3.0),
        ({}, None),
    ],
)
def test_the_smallest_quota_counts(tmp_path: Path, files: dict[str, str], quota: float | None) -> None:
    """Of the control groups of this process, in both versions."""
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    own = tmp_path / "own"
    own.write_text("3:cpuset:/x\n1:cpu:/a\n0::/a\n")
    assert cpu_quota_cores(tmp_path, own) == quota


def had_a_read_of_its_own(record: Record) -> NDArray[np.bool_]:
    """Of each chunk what the client says of it, which is so: the last one may share its read with the reply's end."""
    read, shared = np.asarray(record.chunk_read), np.asarray(record.chunk_merged, dtype=bool)
    as_the_next = read[1:] == read[:-1]
    assert (shared[:-1] == (np.append(False, as_the_next[:-1]) | as_the_next)).all()
    return ~shared


@pytest.mark.parametrize("streams", [1, 32, pytest.param(128, marks=pytest.mark.slow)])
def test_recorded_times_are_those_in_the_chunks(streams: int) -> None:
    """Known answer 8: arrivals are within 0.3 ms (p50) and 2 ms (p99) of the moment of sending that each chunk holds.

    Chunks that the client, by its own account, read together with others have the time of the last and are left out;
    the clock must be the kernel's, or nothing could be so exact.
    """
    with StubServer() as server:
        plan = schedule(30, kind="sustained", users=streams, requests=max(streams, 2))
        truth = measure(server, plan, 20, 20)
    assert {one.status for one in truth.records} == {Status.OK}
    assert len(truth.sent_ns) == plan.measured
    assert truth.report.clock == "kernel"
    late_ms = [(seen - sent) / MS for sent, seen in zip(truth.sent_ns, truth.seen_ns, strict=True)]
    alone = [had_a_read_of_its_own(one) for one in truth.records]
    every = np.concatenate([late[own] for late, own in zip(late_ms, alone, strict=True)])
    first = [late[0] for late, own in zip(late_ms, alone, strict=True) if own[0]]
    gaps = [np.diff(late)[own[1:] & own[:-1]] for late, own in zip(late_ms, alone, strict=True)]
    assert every.min() >= -0.05  # nothing arrives before it is sent; the two clocks differ by less
    assert np.percentile(every, 50) <= 0.3
    assert np.percentile(every, 99) <= 2
    assert np.percentile(first, 50) <= 0.3
    assert np.percentile(np.abs(np.concatenate(gaps)), 99) <= 2


def test_a_wrong_stamp_would_be_seen() -> None:
    """The comparison has teeth: the same arrivals, noted 5 ms late, are wrong by 5 ms."""
    with StubServer() as server:
        truth = measure(server, schedule(10, kind="sustained", users=2, requests=4), 5, 5)
    late = [seen + 5 * MS for seen in truth.seen_ns]
    wrong = Truth(truth.records, truth.report, truth.sent_ns, late, 0.0)
    assert np.percentile(wrong.first_errors_ms(), 50) >= 5


def test_a_small_ladder_is_climbed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every level and rate is tried or said not to be, for want of open files or of time."""
    monkeypatch.setattr(calibrator, "read_ceilings", lambda: Ceilings(files=100, ports=None))
    monkeypatch.setattr(calibrator, "_complaint", lambda *_: None)  # a busy machine would end the climb
    monkeypatch.setattr(calibrator, "TOKENS", 10)
    said: list[str] = []
    found = calibrate(trusted_errors(), Ladder((1, 4, 64), 1, (50,), 0.2, 600.0), said.append)
    assert {one.streams for one in found.levels} == {1, 4}
    assert {one.requests_per_s for one in found.rates} == {50}
    assert len(said) == len(found.levels) + len(found.rates)
    assert found.notes == ("64 streams were not tried: only 100 files may be open at once",)
    assert Calibration.from_dict(json.loads(json.dumps(found.as_dict()))) == found


def test_ctrl_c_between_two_loads_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where an exception would be swallowed (an object is being cleared away), calibrating ends nevertheless."""
    monkeypatch.setattr(calibrator, "TOKENS", 10)
    told: list[str] = []

    def say(text: str) -> None:
        told.append(text)
        signal.raise_signal(signal.SIGINT)  # its handler raises nothing here: nobody could lose it

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(Interrupted):
        calibrate(trusted_errors(), Ladder((1,), 1, (20, 40), 0.2, 10.0, quick=True), say)
    assert len(told) == 1
    assert signal.getsignal(signal.SIGINT) is before


def test_a_stop_signal_changes_a_load_only_in_its_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """The handler may run between any two steps of the load, so it only notes the signal."""
    monkeypatch.setattr(calibrator, "_WATCHED_S", 0)
    control, aborted_by_handler = Control(), list[bool]()

    async def load() -> DriveReport:
        signal.raise_signal(signal.SIGINT)
        aborted_by_handler.append(control.aborted)
        while not control.aborted:
            await asyncio.sleep(0)
        return DriveReport(t0_ns=0, planned=None)

    with pytest.raises(Interrupted), calibrator._interruptible() as heard:
        asyncio.run(calibrator._unless_heard(load(), heard, control))
    assert aborted_by_handler == [False]


def test_no_level_begins_after_its_time() -> None:
    """What there was no time for is said."""
    found = calibrate(trusted_errors(), Ladder((1,), 1, (), 0.2, 0.0))
    assert found.levels == ()
    assert found.notes == ("1 streams were not tried: the time for calibrating was over",)


@pytest.mark.parametrize("ladder", [FULL, QUICK])
def test_ladders_begin_with_what_any_machine_can_do(ladder: Ladder) -> None:
    """And rise; nothing begins so late that a minute is not enough."""
    assert ladder.streams[0] == 1
    assert list(ladder.streams) == sorted(ladder.streams)
    assert list(ladder.rates) == sorted(ladder.rates)
    assert ladder.limit_s <= 45
