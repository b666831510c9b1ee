"""What the client measures of itself: how late it sent, how late its clock ticked, how busy it was."""

from __future__ import annotations

import gc
import os
import time
from array import array
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import numpy as np

from harness.drivers.base import DriveReport
from harness.records import Clock, Record
from harness.timeline import NS_PER_MS, NS_PER_S

_KEPT = 1_000_000


class Thinned:
    """Numbers of which, beyond a million, only every second, then every fourth ... is kept."""

    def __init__(self) -> None:
        self._values = array("q")
        self._stride = 1
        self._skipped = 0

    def extend(self, values: Iterable[int]) -> None:
        """Add numbers."""
        if self._stride == 1:
            self._values.extend(values)
        else:
            listed = list(values)
            self._values.extend(listed[self._skipped :: self._stride])
            self._skipped = (self._skipped - len(listed)) % self._stride
        if len(self._values) > _KEPT:
            self._values = self._values[::2]
            self._stride *= 2

    def percentile_ms(self, share: float) -> float | None:
        """A percentile of numbers in ns, in ms; None when there are none."""
        return float(np.percentile(self._values, share)) / NS_PER_MS if len(self._values) else None


class Vitals:
    """Collects what a DriveReport says."""

    def __init__(self) -> None:
        self._send_lags = Thinned()
        self._chunk_lags = Thinned()
        self._late_ticks = Thinned()
        self._worst_send_lag_ns: int | None = None
        self._pieces = 0
        self._merged = 0
        self._loop_stamped = 0
        self._kernel_stamped = 0
        self._began_ns = time.monotonic_ns()
        self._began_cpu_s = _cpu_s()

    def tick(self, late_ns: int) -> None:
        """The heartbeat came so late."""
        self._late_ticks.extend((late_ns,))

    def add(self, record: Record) -> None:
        """Take what a record tells of the client."""
        if record.sent_ns is not None and record.due_ns is not None:
            lag_ns = record.sent_ns - record.due_ns
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

    def fill(self, report: DriveReport) -> None:
        """Write everything into the report."""
        wall_ns = time.monotonic_ns() - self._began_ns
        report.clock = Clock.KERNEL if self._kernel_stamped and not self._loop_stamped else Clock.LOOP
        report.send_lag_p50_ms = self._send_lags.percentile_ms(50)
        report.send_lag_p99_ms = self._send_lags.percentile_ms(99)
        if self._worst_send_lag_ns is not None:
            report.send_lag_max_ms = self._worst_send_lag_ns / NS_PER_MS
        report.heartbeat_p99_ms = self._late_ticks.percentile_ms(99)
        report.cpu_share = (_cpu_s() - self._began_cpu_s) / (wall_ns / NS_PER_S) if wall_ns else None
        report.merged_read_share = self._merged / self._pieces if self._pieces else None
        report.chunk_lag_p99_ms = self._chunk_lags.percentile_ms(99)
        if self._kernel_stamped and self._loop_stamped:
            report.notes.append(
                f"{self._loop_stamped} of {self._loop_stamped + self._kernel_stamped} replies hold reads "
                "that the kernel's stamp could not be used for; their arrivals are those of the event loop"
            )


def _cpu_s() -> float:
    times = os.times()
    return times.user + times.system


@contextmanager
def collector_off() -> Iterator[None]:
    """The garbage collector does not run inside: a pause would be a stall of the client."""
    was_on = gc.isenabled()
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.unfreeze()
        if was_on:
            gc.enable()
