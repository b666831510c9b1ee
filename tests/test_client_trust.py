"""Known answers about the client itself, in real time against a server whose truth is known."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field

import numpy as np
import pytest
from numpy.typing import NDArray

from harness.analysis.reading import read
from harness.drivers import canary
from harness.drivers.base import DriveReport, DriveSettings
from harness.drivers.drive import drive
from harness.drivers.stub import StubServer
from harness.records import Loop, Record, Status
from harness.schedule.requests import Schedule
from harness.store.manifest import ClientEntry
from harness.verdict.reason import Validity
from tests import judged as judging
from tests.driven import measured
from tests.fabricated import FabricatedTrial, cell_entry, trial_entry
from tests.plans import exact_schedule

MS = 1_000_000
FIRST_MS = 20.0


def driven(
    schedule: Schedule, during: Callable[[asyncio.AbstractEventLoop], object] | None = None
) -> tuple[list[Record], DriveReport]:
    """The records of a schedule on the server of known truth, with a canary beside it, and the client's report."""
    records: list[Record] = []

    async def body(server: StubServer, port: int | None) -> DriveReport:
        settings = DriveSettings(timeout_ns=10_000 * MS, canary_port=port, keep_text=True)
        if during is not None:
            during(asyncio.get_running_loop())
        return await drive(schedule, server.endpoint(FIRST_MS, 1), settings, records.append)

    with StubServer() as server, canary.sender(True) as sender:
        report = asyncio.run(body(server, sender.port))
    return sorted(records, key=lambda record: record.request), report


def judged(schedule: Schedule, records: list[Record], report: DriveReport) -> Validity:
    """The validity of what was driven."""
    planned = {"measure": schedule.count, "warmup": 0}
    client = ClientEntry.model_validate(asdict(report))
    trial = trial_entry(loop=str(Loop.OPEN), window={"start_ns": 0, "end_ns": None}, planned=planned, client=client)
    return judging.judged(FabricatedTrial(cell_entry(), trial, records))


def column(records: list[Record], name: str) -> NDArray[np.float64]:
    """A column of times in ms."""
    return np.array([getattr(record, name) for record in records], dtype=np.float64) / MS


@dataclass
class Load:
    """200 requests a second for two and a half seconds, beside a timer of the same loop that asks for every
    millisecond. ran_ns: when it went off.
    """

    schedule: Schedule
    records: list[Record] = field(init=False)
    report: DriveReport = field(init=False)
    ran_ns: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.records, self.report = driven(self.schedule, self.watch)

    def watch(self, loop: asyncio.AbstractEventLoop) -> None:
        """Note the time, again and again."""
        self.ran_ns.append(time.monotonic_ns())
        loop.call_later(0.001, self.watch, loop)


@pytest.fixture(scope="module")
def load() -> Load:
    """A load that two tests look at."""
    return Load(exact_schedule(1, kind="sustained", rate=200, arrivals="poisson", requests=500))


@pytest.mark.slow
def test_what_is_due_is_sent_then(load: Load) -> None:
    """Known answer 6: at 200/s every row of the plan is a record with its due time. What is due is sent no later than
    another timer of the same loop goes off that asks for every millisecond, and the last requests are as punctual as
    the first.
    """
    schedule, report, records = load.schedule, load.report, measured(load.records)
    assert schedule.due_ns is not None
    assert [(record.request, record.due_ns) for record in records] == list(enumerate(schedule.due_ns[:500].tolist()))
    assert {record.status for record in records} == {Status.OK}
    lag = column(records, "sent_ns") - column(records, "due_ns")
    assert lag.min() >= 0
    ran = (np.array(load.ran_ns) - report.t0_ns) / MS
    due = column(records, "due_ns")
    awake = ran[np.minimum(np.searchsorted(ran, due), len(ran) - 1)]  # when the machine next let the loop run
    behind = column(records, "sent_ns") - awake
    assert np.quantile(behind, 0.5) < 0.5
    assert np.quantile(behind, 0.99) < 2.0
    assert abs(np.median(behind[-100:]) - np.median(behind[:100])) < 1.0
    assert report.send_lag_p50_ms == pytest.approx(np.percentile(lag, 50), abs=0.1)
    assert report.send_lag_max_ms is not None
    assert report.send_lag_max_ms >= lag.max() - 0.1  # what the other side took to accept is not the client's


@dataclass
class Stalls:
    """A client's loop that is kept busy for 50 ms twice a second; ns: from and until."""

    ns: list[tuple[int, int]] = field(default_factory=list)

    def begin(self, loop: asyncio.AbstractEventLoop) -> None:
        """Stall from 0.3 s on."""
        loop.call_later(0.3, self._stall, loop)

    def _stall(self, loop: asyncio.AbstractEventLoop) -> None:
        began = time.monotonic_ns()
        while time.monotonic_ns() < began + 50 * MS:
            pass
        self.ns.append((began, time.monotonic_ns()))
        loop.call_later(0.45, self._stall, loop)

    def hold_back(self, due: NDArray[np.float64], sent: NDArray[np.float64], t0_ns: int) -> NDArray[np.bool_]:
        """Which requests fell due in a stall; none of them was sent before it ended."""
        found = np.zeros(len(due), dtype=np.bool_)
        for began, ended in self.ns:
            start, end = (began - t0_ns) / MS, (ended - t0_ns) / MS
            inside = (due >= start) & (due < end)
            assert (sent[inside] >= end - 0.1).all(), "nothing can be sent while the loop is busy"
            found |= inside
        return found


@pytest.mark.slow
def test_a_stalling_client_turns_round_late_in_a_closed_loop() -> None:
    """Replies that end in a stall are followed after it: the turnaround has it, and no first token is later for it."""
    stalls = Stalls()
    schedule = exact_schedule(1, kind="sustained", users=8, requests=600)
    records, report = driven(schedule, stalls.begin)
    records = measured(records)
    due, sent = (column(records, name) for name in ("due_ns", "sent_ns"))
    in_stall = stalls.hold_back(due, sent, report.t0_ns)
    found = read(FabricatedTrial(cell_entry(), trial_entry(loop=str(Loop.CLOSED)), records)).observed
    order = np.argsort(due, kind="stable")
    ttft, turnaround = found["ttft_ms"].values, found["client_turnaround_ms"].values
    assert in_stall.sum() >= 8
    base = np.quantile(ttft[~in_stall[order]], 0.5)
    assert np.quantile(ttft[in_stall[order]], 0.5) < base + 10
    accepting = np.array([record.accepting_ns or 0 for record in records]) / MS
    assert turnaround == pytest.approx((sent - due - accepting)[order])
    assert len(found["send_lag_ms"].values) == 0


@pytest.mark.slow
def test_a_stalling_client_is_found_out() -> None:
    """Known answer 7: the load generator's loop is kept busy for 50 ms twice a second. TTFT from due contains the
    stalls, TTFT from sent does not; the doubt says by how much p99 is off.
    """
    stalls = Stalls()
    schedule = exact_schedule(1, kind="sustained", rate=200, arrivals="constant", requests=400)
    records, report = driven(schedule, stalls.begin)
    found = judged(schedule, records, report)
    (late,) = (one for one in found.reasons if one.code == "client_late")
    records = measured(records)
    due, sent, first = (column(records, name) for name in ("due_ns", "sent_ns", "first_token_ns"))
    in_stall = stalls.hold_back(due, sent, report.t0_ns)
    assert in_stall.sum() >= 30
    base = np.quantile((first - sent)[~in_stall], 0.5)
    assert np.quantile(first - due, 0.99) > base + 40
    p99 = next(one for one in late.effects if (one.metric, one.statistic) == ("ttft_ms", "p99"))
    assert p99.value == pytest.approx(np.quantile(first - due, 0.99), rel=0.02)
    assert p99.low == pytest.approx(np.quantile(first - sent, 0.99), rel=0.02)
    assert np.quantile((first - sent)[in_stall], 0.5) < base + 10
    assert report.heartbeat_p99_ms is not None
    assert report.heartbeat_p99_ms > 20


@pytest.mark.slow
def test_the_canary_tells_the_error_of_arrivals(load: Load) -> None:
    """Known answer 8: the canary sends twenty events a second beside the load; their recorded arrivals are off by no
    more than those of the load's own tokens, whose texts hold the truth, and the plan and its records know nothing of
    it.
    """
    report, records = load.report, load.records
    assert len(records) == report.recorded == 500 + report.cooldown
    assert report.connections_opened < 500
    records = measured(records)
    assert len(records) == 500
    lasted_s = column(records, "done_ns").max() / 1000
    assert 10 * lasted_s <= report.canary_events <= 20 * lasted_s + 2, "a late sender sends fewer, never more"
    truth = np.array([int((record.text or "").strip()) - report.t0_ns for record in records]) / MS
    error = column(records, "first_token_ns") - truth
    assert report.canary_p50_ms is not None
    assert report.canary_p50_ms < np.median(error) + 1.0
    assert report.clock == "kernel"
    assert report.canary_p95_ms is not None


def test_a_canary_that_cannot_be_read_is_said() -> None:
    """Where nothing listens the readings are empty, the notes say so, and the load is measured as ever."""
    schedule = exact_schedule(1, kind="sustained", rate=100, requests=10)

    async def body(server: StubServer) -> DriveReport:
        settings = DriveSettings(timeout_ns=10_000 * MS, canary_port=1)
        return await drive(schedule, server.endpoint(1, 1), settings, lambda record: None)

    with StubServer() as server:
        report = asyncio.run(body(server))
    assert (report.recorded - report.cooldown, report.canary_events, report.canary_p99_ms) == (10, 0, None)
    assert [note for note in report.notes if note.startswith("no canary")]
