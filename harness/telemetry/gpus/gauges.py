"""Gauges of one GPU, read in turn, each stamped with the middle of its reading.

Throttling reasons are NVML's event reasons, for GPUs of all makers.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from harness.records import Sample

RETRY_NS = 1_000_000_000
SLOWLY_NS = 1_000_000_000
WHOLE_GPU = "anything"

REASONS = {
    0x1: "idle",
    0x2: "clocks set by the user",
    0x4: "software power cap",
    0x8: "hardware slowdown",
    0x10: "sync boost",
    0x20: "software thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "hardware power brake",
    0x100: "display clocks",
    0x200: "board limit",
    0x400: "reliability limit",
}
SLOWED_DOWN = 0x8 | 0x20 | 0x40 | 0x80


class Unavailable(Exception):
    """Missing value of a gauge. forever: the GPU or driver lacks it; otherwise it is read again later."""

    def __init__(self, reason: str, *, forever: bool) -> None:
        super().__init__(reason)
        self.forever = forever


@dataclass(frozen=True, slots=True)
class Gauge:
    """Call of the driver that gives one reading or several."""

    what: str  # its name in messages
    read: Callable[[], Mapping[str, float]]  # values by sample names; raises Unavailable
    every_ns: int = 0  # shortest interval


def as_readings(mask: int) -> dict[str, float]:
    """Return a mask of reasons as readings: the mask, and 1.0 if heat or a power fault slows the GPU down."""
    return {"throttle_reasons": float(mask), "throttled": float(bool(mask & SLOWED_DOWN))}


def where_it_computes(of_each: Sequence[set[int]], engine_pids: Collection[int]) -> set[int]:
    """Return the processes on the engine's GPUs, or on all GPUs if the engine uses none."""
    own = [processes for processes in of_each if not processes.isdisjoint(engine_pids)]
    return set().union(*(own or of_each))


def named(mask: int) -> list[str]:
    """Return the names of the reasons in a mask; unknown bits by number."""
    bits = [1 << place for place in range(mask.bit_length()) if mask >> place & 1]
    return [REASONS.get(bit, f"reason {bit:#x}") for bit in bits]


class GaugeReader:
    """Reader of the gauges of one GPU, `source` ("gpu0").

    A gauge that the GPU lacks is read once and reported in `unread`. A gauge that fails later, as all do once a GPU is
    lost, is reported with the time and read again once a second: the GPU may come back.
    """

    def __init__(
        self, source: str, gauges: Sequence[Gauge], unread: list[str], clock: Callable[[], int] = time.monotonic_ns
    ) -> None:
        self._source, self._gauges, self._unread, self._clock = source, list(gauges), unread, clock
        self._due_ns = {gauge.what: 0 for gauge in gauges}
        self._reported: set[str] = set()
        self._lost = False

    def samples(self) -> list[Sample]:
        """Read every gauge that is due."""
        taken: list[Sample] = []
        broken: dict[str, str] = {}
        for gauge in list(self._gauges):
            before_ns = self._clock()
            if before_ns < self._due_ns[gauge.what]:
                continue
            try:
                values = gauge.read()
            except Unavailable as error:
                self._handle_missing(gauge, error, before_ns, broken)
                continue
            width_ns = self._clock() - before_ns
            self._due_ns[gauge.what] = before_ns + gauge.every_ns
            at_ns = before_ns + width_ns // 2
            taken += [Sample(at_ns, self._source, name, value, width_ns=width_ns) for name, value in values.items()]
        self._report_broken(broken, silent=not taken)
        return taken

    def _handle_missing(self, gauge: Gauge, error: Unavailable, now_ns: int, broken: dict[str, str]) -> None:
        if error.forever:
            self._gauges.remove(gauge)
            self._unread.append(f"{self._source} does not report {gauge.what}: {error}")
        else:
            self._due_ns[gauge.what] = now_ns + RETRY_NS
            broken[gauge.what] = str(error)

    def _report_broken(self, broken: Mapping[str, str], *, silent: bool) -> None:
        """Report a lost GPU in one sentence, else each broken gauge; never twice."""
        self._lost = silent and (self._lost or len(broken) > 1)
        if not broken:
            return
        now = datetime.now(UTC).strftime("%H:%M:%S UTC")
        if self._lost and WHOLE_GPU not in self._reported:
            self._reported.add(WHOLE_GPU)
            why = next(iter(broken.values()))
            self._unread.append(f"{self._source} could not be read any more from {now} on: {why}")
        for what, why in broken.items():
            if not self._lost and what not in self._reported:
                self._reported.add(what)
                self._unread.append(f"{self._source} did not report {what} at {now}: {why}")
