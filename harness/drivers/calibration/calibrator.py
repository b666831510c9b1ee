"""Calibration of the load generator: its errors under growing loads from a stub server of known truth."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray
from pydantic import TypeAdapter

from harness.drivers.base import Control, DriveReport, DriveSettings
from harness.drivers.calibration.store import Calibration, RateLevel, StreamLevel, conclude
from harness.drivers.drive import drive
from harness.drivers.stub import StubServer, sent_times_ns
from harness.drivers.timeline import NS_PER_MS, NS_PER_S, Int64
from harness.errors import Interrupted, TrialFailed
from harness.processes import background, event_loop_runner, stop_signals_heard_by
from harness.records import Phase, Record, Status
from harness.scenario.loads.kinds import Load, LoadItem
from harness.scenario.workload import Workload
from harness.schedule.requests import Schedule, build
from harness.telemetry.cgroup import read_ceilings

Report = Callable[[str], None]
Float64 = NDArray[np.float64]

FIRST_MS = 50.0
GAP_MS = 20.0
TOKENS = 50
_RATE_MS = 5.0  # until the first token, and between tokens
_RATE_TOKENS = 2
_BIN_NS = 100 * NS_PER_MS
_CLOSE = 1.3  # no level is tried between two that are closer than this ratio
_BUSY_S = 0.3
_TIMEOUT_S = 20
_SPARE_FILES = 64
_WATCHED_S = 0.1  # longest time until a load notices a stop signal


@dataclass(frozen=True, slots=True)
class Ladder:
    """Loads to try, in order."""

    streams: tuple[int, ...]
    rounds: int  # requests of each stream
    rates: tuple[float, ...]
    rate_s: float
    limit_s: float  # time after which no further number of streams is tried
    quick: bool = False


FULL = Ladder((1, 32, 128, 512, 1024, 2048, 4096), 3, (100, 500, 1000, 2000, 4000), 2.0, 45.0)
QUICK = Ladder((1, 128, 512), 1, (100, 1000), 1.0, 15.0, quick=True)


@dataclass(frozen=True, slots=True)
class Bounds:
    """Largest p99 errors of a level."""

    first_ms: float  # of the arrival of first tokens
    gap_ms: float  # of the gaps between tokens
    lag_ms: float
    slowdown: float  # ratio of the server's own gaps to the requested ones


@dataclass(frozen=True, slots=True)
class Truth:
    """Sending and recorded times of the tokens of each reply of a load, absolute."""

    records: list[Record]
    report: DriveReport
    sent_ns: list[Int64]
    seen_ns: list[Int64]
    server_cpu_share: float

    def first_errors_ms(self) -> Float64:
        """Return the error of each reply's first token."""
        found = [abs(int(seen[0]) - int(sent[0])) for sent, seen in zip(self.sent_ns, self.seen_ns, strict=True)]
        return np.asarray(found, dtype=np.float64) / NS_PER_MS

    def gap_errors_ms(self) -> Float64:
        """Return the errors of the times between two tokens."""
        pairs = zip(self.sent_ns, self.seen_ns, strict=True)
        return np.concatenate([np.abs(np.diff(seen) - np.diff(sent)) for sent, seen in pairs]) / NS_PER_MS

    def events_per_s(self) -> float:
        """Return the tokens sent per second: the median of bins of 100 ms."""
        at_ns = np.concatenate(self.sent_ns)
        counts = np.bincount((at_ns - at_ns.min()) // _BIN_NS)
        return float(np.median(counts)) * NS_PER_S / _BIN_NS

    def slowdown(self) -> float:
        """Return the ratio of the server's own gaps to the requested ones."""
        return float(np.mean([np.diff(sent).mean() for sent in self.sent_ns])) / (GAP_MS * NS_PER_MS)


def calibrate(bounds: Bounds, ladder: Ladder = FULL, report: Report = lambda _: None) -> Calibration:
    """Find the largest load that is measured accurately; `report` each level. Call in the main thread.

    Raises TrialFailed if the stub server does not start, Interrupted if the user stops the calibration.
    """
    until_s = time.monotonic() + ladder.limit_s
    busy_share = psutil.cpu_percent(interval=_BUSY_S) / 100
    with _interruptible() as heard, StubServer() as server:
        search = _Search(server, ladder, bounds, report, heard, until_s)
        search.rates()
        search.streams()
    created = datetime.now(UTC).isoformat(timespec="seconds")
    return conclude(search.levels, search.sent, search.notes, created, quick=ladder.quick, busy_share=busy_share)


@dataclass
class _Search:
    """Search for the largest load. A level that fails is tried again: a disturbance may not recur."""

    server: StubServer
    ladder: Ladder
    bounds: Bounds
    report: Report
    heard: Sequence[int]
    until_s: float
    levels: list[StreamLevel] = field(default_factory=list)
    sent: list[RateLevel] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def rates(self) -> None:
        """Try rates up to the first that fails twice."""
        for rate in self.ladder.rates:
            if not (self._rate_holds(rate) or self._rate_holds(rate)):
                return

    def streams(self) -> None:
        """Try numbers of streams up to the first that fails twice, then one between it and the last that held."""
        for streams in self.ladder.streams:
            if self._left_out(streams):
                return
            if not (self._holds(streams) or self._holds(streams)):
                break
        else:
            return
        between = round((streams * max((one.streams for one in self.levels if one.held), default=0)) ** 0.5)
        if not self.ladder.quick and between and streams / between >= _CLOSE and not self._left_out(between):
            _ = self._holds(between) or self._holds(between)

    def _rate_holds(self, rate: float) -> bool:
        level = rate_level(self.server, rate, self.ladder.rate_s, self.bounds, self.heard)
        self.sent.append(level)
        self.report(f"{rate:g} requests/s: sent within {level.send_lag_p99_ms:.3f} ms of due (p99)")
        return level.held

    def _holds(self, streams: int) -> bool:
        level = stream_level(self.server, streams, self.ladder.rounds, self.bounds, self.heard)
        self.levels.append(level)
        errors = f"first tokens within {level.ttft_error_p99_ms:.3f} ms, gaps within {level.itl_error_p99_ms:.3f} ms"
        self.report(f"{streams} streams: {errors} (p99)" + (f"; {level.reason}" if level.reason else ""))
        return level.held

    def _left_out(self, streams: int) -> bool:
        files = read_ceilings().files
        if files is not None and streams > files - _SPARE_FILES:
            why = f"only {files} files may be open at once"
        elif time.monotonic() > self.until_s:
            why = "the time for calibrating was over"
        else:
            return False
        self.notes.append(f"{streams:,} streams were not tried: {why}")
        return True


def stream_level(
    server: StubServer, streams: int, rounds: int, bounds: Bounds, heard: Sequence[int] = ()
) -> StreamLevel:
    """Measure `streams` concurrent replies, one token every 20 ms each."""
    plan = schedule(TOKENS, kind="sustained", users=streams, requests=streams * rounds)
    truth = measure(server, plan, FIRST_MS, GAP_MS, heard)
    first, gaps = truth.first_errors_ms(), truth.gap_errors_ms()
    reason = _complaint(truth, plan, first, gaps, bounds)
    return StreamLevel(
        streams=streams,
        requests=len(truth.records),
        events_per_s=truth.events_per_s(),
        **_quantiles("ttft_error", first),
        **_quantiles("itl_error", gaps),
        cpu_share=truth.report.cpu_share or 0.0,
        server_cpu_share=truth.server_cpu_share,
        merged_read_share=truth.report.merged_read_share or 0.0,
        clock=truth.report.clock,
        held=reason is None,
        reason=reason,
    )


def _complaint(truth: Truth, plan: Schedule, first: Float64, gaps: Float64, bounds: Bounds) -> str | None:
    """Return the reason for which a level is not trusted, if there is one."""
    if (failed := _failure(truth.records, plan)) is not None:
        return failed
    for errors, bound_ms, name in ((first, bounds.first_ms, "first tokens"), (gaps, bounds.gap_ms, "gaps")):
        seen_ms = float(np.percentile(errors, 99))
        if seen_ms > bound_ms:
            return f"the error of {name} was {seen_ms:.2f} ms at p99, above {bound_ms:g} ms"
    return "the stub server could not send more on these cores" if truth.slowdown() > bounds.slowdown else None


def rate_level(server: StubServer, rate: float, seconds: float, bounds: Bounds, heard: Sequence[int] = ()) -> RateLevel:
    """Measure an open loop with Poisson arrivals and short replies."""
    plan = schedule(_RATE_TOKENS, kind="sustained", rate=rate, requests=round(rate * seconds))
    truth = measure(server, plan, _RATE_MS, _RATE_MS, heard)
    lags = np.asarray([(one.sent_ns or 0) - (one.due_ns or 0) for one in truth.records], dtype=np.float64) / NS_PER_MS
    lag = _quantiles("send_lag", lags)
    reason, p99 = _failure(truth.records, plan), lag["send_lag_p99_ms"]
    if reason is None and p99 > bounds.lag_ms:
        reason = f"requests were sent {p99:.2f} ms late at p99, above {bounds.lag_ms:g} ms"
    return RateLevel(rate, len(truth.records), **lag, held=reason is None, reason=reason)


def measure(server: StubServer, plan: Schedule, first_ms: float, gap_ms: float, heard: Sequence[int] = ()) -> Truth:
    """Send a plan to the stub server; return its sending times and the recorded times.

    `heard` are the stop signals that came; one ends the load.

    Raises TrialFailed if no reply arrives, Interrupted if a stop signal came.
    """
    control = Control()
    records: list[Record] = []
    settings = DriveSettings(_TIMEOUT_S * NS_PER_S, keep_text=True, warm_connections=plan.users or None)
    process = psutil.Process(server.pid)
    before_s, began_ns = sum(process.cpu_times()[:2]), time.monotonic_ns()
    driving = drive(plan, server.endpoint(first_ms, gap_ms), settings, records.append, control)
    report: DriveReport = event_loop_runner()(_unless_heard(driving, heard, control))
    wall_s = (time.monotonic_ns() - began_ns) / NS_PER_S
    if heard:
        raise Interrupted("interrupted")
    records = [one for one in records if one.phase == Phase.MEASURE]
    whole = [one for one in records if one.status == Status.OK and one.chunk_ns and one.text]
    if not whole:
        raise TrialFailed(f"no reply of the stub server arrived: {_failure(records, plan)}")
    sent = [np.asarray(sent_times_ns(one.text or ""), dtype=np.int64) for one in whole]
    seen = [np.asarray(one.chunk_ns, dtype=np.int64) + report.t0_ns for one in whole]
    return Truth(records, report, sent, seen, (sum(process.cpu_times()[:2]) - before_s) / wall_s)


async def _unless_heard(
    driving: Coroutine[Any, Any, DriveReport], heard: Sequence[int], control: Control
) -> DriveReport:
    """Send a load to its end, or abort it soon after a stop signal."""

    async def watch() -> None:
        while not heard:
            await asyncio.sleep(_WATCHED_S)
        control.abort()

    async with background(watch()):
        return await driving


@contextlib.contextmanager
def _interruptible() -> Iterator[Sequence[int]]:
    """Yield the stop signals that came, such as Ctrl-C and SIGTERM: one ends the load and then the block.

    Their handlers raise nothing: an exception would be lost in the loop or during garbage collection. Nor do they
    change the load: they may run between any two of its steps.
    """
    heard: list[int] = []
    with stop_signals_heard_by(heard.append):
        yield heard
    if heard:
        raise Interrupted("interrupted")


def _failure(records: Sequence[Record], plan: Schedule) -> str | None:
    failed = [one for one in records if one.status != Status.OK]
    if failed:
        return f"{len(failed)} of {len(records)} requests failed: {failed[0].status}, {failed[0].error or 'no reason'}"
    if len(records) == plan.measured:
        return None
    return f"{plan.measured} requests were planned, {len(records)} have a record"


def schedule(tokens: int, **load: Any) -> Schedule:
    """Return a plan of short prompts and replies of exactly `tokens`; the other keys are those of a scenario's load."""
    wanted: Load = TypeAdapter(LoadItem).validate_python(load)
    output = {"dist": "fixed", "value": tokens, "exact": True}
    return build(wanted, Workload.model_validate({"prompt_tokens": 16, "output_tokens": output}), seed=1)


def _quantiles(name: str, values: Float64) -> dict[str, float]:
    found = np.percentile(values, (50, 99, 100)) if len(values) else (float("nan"),) * 3
    return {f"{name}_{part}_ms": float(value) for part, value in zip(("p50", "p99", "max"), found, strict=True)}
