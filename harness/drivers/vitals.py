"""Self-measurement of the load generator: send lag, heartbeat, CPU time, and a recount of a few replies."""

from __future__ import annotations

import gc
import os
import time
from array import array
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import numpy as np

from harness.drivers.base import DriveReport
from harness.drivers.timeline import NS_PER_MS, NS_PER_S, Outcome, generated_text
from harness.records import Clock, Phase, Record, Status, TokenSource
from harness.telemetry import cgroup

_KEPT = 1 << 18
REPLIES = 200
CHARACTERS = 400_000
_BROKEN = "\N{REPLACEMENT CHARACTER}"


class Thinned:
    """Sample of numbers: beyond 262,144 only every second, then every fourth, is kept."""

    def __init__(self) -> None:
        self._values = array("q")
        self._stride = 1
        self._skipped = 0

    def extend(self, values: Iterable[int]) -> None:
        if self._stride == 1:
            self._values.extend(values)
        else:
            listed = list(values)
            self._values.extend(listed[self._skipped :: self._stride])
            self._skipped = (self._skipped - len(listed)) % self._stride
        if len(self._values) > _KEPT:
            self._values = self._values[::2]
            self._stride *= 2

    def percentile_ms(self, share: float, least: int | None = None) -> float | None:
        """Return a percentile in ms of numbers in ns, those below `least` excluded; None if there are none."""
        values = np.frombuffer(self._values, dtype=np.int64)
        if least is not None:
            values = values[values >= least]
        return float(np.percentile(values, share)) / NS_PER_MS if len(values) else None


class Seconds:
    """Peaks of values read once a second: CPU time of the loop's thread, open files, ports."""

    def __init__(self) -> None:
        self._ceilings = cgroup.read_ceilings()
        self._wall_ns, self._cpu_ns = time.monotonic_ns(), time.thread_time_ns()
        self.cpu_peak: float | None = None
        self.files_peak: float | None = None
        self.ports_peak: float | None = None

    def look(self, now_ns: int) -> None:
        """Read the values if a second has passed."""
        wall_ns = now_ns - self._wall_ns
        if wall_ns < NS_PER_S:
            return
        cpu_ns = time.thread_time_ns()
        self.cpu_peak = max((cpu_ns - self._cpu_ns) / wall_ns, self.cpu_peak or 0.0)
        self._wall_ns, self._cpu_ns = now_ns, cpu_ns
        if self._ceilings.files:
            opened = cgroup.open_files(self._ceilings.files)
            self.files_peak = max(opened / self._ceilings.files, self.files_peak or 0.0)
        sockets = cgroup.read_tcp_sockets()
        if self._ceilings.ports and sockets is not None:
            self.ports_peak = max(sockets / self._ceilings.ports, self.ports_peak or 0.0)


class Vitals:
    """Collector of a DriveReport. Call `begin` right before the first request is sent, before any other method."""

    def __init__(self) -> None:
        self._send_lags = Thinned()
        self._chunk_lags = Thinned()
        self._late_ticks = Thinned()
        self._worst_send_lag_ns: int | None = None
        self._pieces = self._merged = self._loop_stamped = self._kernel_stamped = 0

    def begin(self, report: DriveReport) -> None:
        """Start to count time, CPU time and pressure."""
        self._report, self._opened_before = report, report.connections_opened
        self._began_ns, self._began_cpu_s = time.monotonic_ns(), _cpu_s()
        self._pressure = cgroup.read_pressure()
        self._seconds = Seconds()

    def tick(self, late_ns: int) -> None:
        """Count one heartbeat and its lateness."""
        self._late_ticks.extend((late_ns,))
        self._seconds.look(time.monotonic_ns())

    def add(self, record: Record) -> None:
        """Count the lags and merged reads of a record."""
        if record.sent_ns is not None and record.due_ns is not None:
            lag_ns = record.sent_ns - record.due_ns - (record.held_ns or 0) - (record.accepting_ns or 0)
            self._send_lags.extend((lag_ns,))
            self._worst_send_lag_ns = max(lag_ns, self._worst_send_lag_ns or 0)
        if record.clock is not None:
            self._loop_stamped += record.clock == Clock.LOOP
            self._kernel_stamped += record.clock == Clock.KERNEL
        if record.chunk_lag_ns:
            self._chunk_lags.extend(record.chunk_lag_ns)
        if record.chunk_merged:
            self._pieces += len(record.chunk_merged)
            self._merged += sum(record.chunk_merged)

    def see(self, outcome: Outcome) -> None:
        """Count the unreadable events and impossible counts of a reply."""
        self._report.unreadable_events += outcome.unreadable
        self._report.impossible_counts += outcome.impossible

    def fill(self) -> None:
        report, wall_ns = self._report, time.monotonic_ns() - self._began_ns
        report.clock = Clock.KERNEL if self._kernel_stamped and not self._loop_stamped else Clock.LOOP
        report.send_lag_p50_ms = self._send_lags.percentile_ms(50)
        report.send_lag_p99_ms = self._send_lags.percentile_ms(99)
        if self._worst_send_lag_ns is not None:
            report.send_lag_max_ms = self._worst_send_lag_ns / NS_PER_MS
        report.heartbeat_p99_ms = self._late_ticks.percentile_ms(99)
        report.cpu_share = (_cpu_s() - self._began_cpu_s) / (wall_ns / NS_PER_S) if wall_ns else None
        report.merged_read_share = self._merged / self._pieces if self._pieces else None
        report.chunk_lag_p99_ms = self._chunk_lags.percentile_ms(99, least=0)
        withheld = cgroup.read_pressure().since(self._pressure)
        report.throttled_periods, report.steal_share = withheld.throttled_periods, withheld.steal_share
        report.throttled_ms = None if withheld.throttled_ns is None else withheld.throttled_ns / NS_PER_MS
        report.cpu_peak_share = self._seconds.cpu_peak
        report.open_files_share, report.ports_share = self._seconds.files_peak, self._seconds.ports_peak
        report.connections_in_window = report.connections_opened - self._opened_before
        report.notes += self._notes()

    def _notes(self) -> Iterator[str]:
        if number := self._report.unreadable_events:
            events = "1 event" if number == 1 else f"{number} events"
            yield f"{events} of the server's replies could not be read and were skipped"
        if number := self._report.impossible_counts:
            times = "once" if number == 1 else f"{number} times"
            yield f"replies state an impossible number of tokens ({times}); it counts as unknown"
        if self._kernel_stamped and self._loop_stamped:
            replies = f"{self._loop_stamped} of {self._loop_stamped + self._kernel_stamped} replies"
            yield (
                f"{replies} have reads without a usable stamp of the kernel; their arrivals are those of the event loop"
            )


def _cpu_s() -> float:
    times = os.times()
    return times.user + times.system


@contextmanager
def collector_off() -> Iterator[None]:
    """Suspend the garbage collector: a pause would stall the load generator. What was frozen before stays frozen."""
    was_on, froze_before = gc.isenabled(), gc.get_freeze_count() > 0
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        if not froze_before:
            gc.unfreeze()
        if was_on:
            gc.enable()


class Recount:
    """Sample of replies whose text is counted again with the model's tokenizer after the load.

    It keeps up to `replies` measured requests, spread evenly, and counts at most `characters`. Only replies counted by
    the server's usage or the engine qualify: the recount is a second opinion. Texts with a replacement character are
    left out, because their tokens cannot be recovered.
    """

    def __init__(
        self, count: Callable[[str], int] | None, replies: int = REPLIES, characters: int = CHARACTERS
    ) -> None:
        self._count = count
        self._most, self._characters = replies, characters
        self._kept: dict[int, str] = {}
        self._step, self._until_next = 1, 1

    def see(self, record: Record, outcome: Outcome) -> None:
        """Consider a reply that has ended; cheap, because most are skipped."""
        if self._count is None:
            return
        self._until_next -= 1
        if self._until_next:
            return
        if record.phase != Phase.MEASURE or record.status != Status.OK:
            self._until_next = 1  # try the next one
            return
        self._until_next = self._step
        text = generated_text(outcome) if record.token_source in (TokenSource.USAGE, TokenSource.ENGINE) else ""
        self._kept[record.request] = "" if _BROKEN in text else text  # an empty text is skipped when counting
        if len(self._kept) > self._most:
            self._kept = {request: text for place, (request, text) in enumerate(self._kept.items()) if place % 2 == 0}
            self._step = self._until_next = 2 * self._step

    def counted(self) -> list[tuple[int, int]]:
        """Return (request, tokens of its text) of the kept replies. Slow: call after the load."""
        if self._count is None:
            return []
        found, left = [], self._characters
        for request, text in self._kept.items():
            left -= len(text)
            if text and left >= 0:
                found.append((request, self._count(text)))
        return found
