"""Timing of a load: loop, measurement window, due times and phases."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.records import Loop, Phase
from harness.scenario.loads.rates import Bursts
from harness.schedule import arrivals
from harness.schedule.arrivals import NS_PER_S, Int64, Process
from harness.seeding import generator

PHASES = (Phase.WARMUP, Phase.MEASURE, Phase.COOLDOWN)
_WARMUP, _MEASURE, _COOLDOWN = range(3)
_WARMUP_GAPS, _GAPS, _SPIKE = 20, 21, 22
NOT_KNOWN_NS = 2**62  # start of a window that a search has not come to


@dataclass(frozen=True, slots=True)
class Window:
    """Measurement window: requests that fall due in it are measured. Offsets from T0.

    The end is None if it depends on the replies, as in a closed loop limited by requests. A trace and a spike without
    a rate end with their last request.
    """

    start_ns: int
    end_ns: int | None

    def phase_of(self, due_ns: int) -> Phase:
        """Return the phase of a request by its due time, an offset from T0."""
        if due_ns < self.start_ns:
            return Phase.WARMUP
        return Phase.MEASURE if self.end_ns is None or due_ns < self.end_ns else Phase.COOLDOWN


@dataclass(frozen=True, slots=True)
class Timing:
    """Timing of a schedule's chains, with the fields of `Schedule`; sessions count conversations."""

    loop: Loop
    count: int | None
    users: int
    window: Window
    continues: bool
    measured: int | None = None
    due_ns: Int64 | None = None
    phases: NDArray[np.int8] | None = None
    grows: bool = False


def plan_timing(load: Any, seed: int, timeout_s: float | None = None) -> Timing:
    """Return the timing of a load without lists; `timeout_s` None: the load's own.

    The load goes on as cooldown, so that the last measured requests meet the same load as the first. If a duration
    limits the window, the cooldown lasts one timeout, which is the longest measured request. If a number of requests
    limits it, at most as many follow again. The window then ends when the first of them falls due.
    """
    start_ns = _ns(load.warmup_s)
    if load.user_count is not None:
        end_ns = None if load.measured_s is None else start_ns + _ns(load.measured_s)
        return Timing(load.loop, None, load.user_count, Window(start_ns, end_ns), True, load.measured_count)
    warmup, number = _warmup(load, seed, start_ns), load.measured_count
    measured, window = _measured(load, seed, start_ns, _ns(load.timeout_s if timeout_s is None else timeout_s))
    due_ns = np.concatenate([warmup, measured])
    phases = np.full(len(due_ns), _MEASURE, dtype=np.int8)
    phases[: len(warmup)] = _WARMUP
    if number is not None:
        phases[len(warmup) + number :] = _COOLDOWN
    elif window.end_ns is not None:
        phases[due_ns >= window.end_ns] = _COOLDOWN
    return Timing(load.loop, len(due_ns), 0, window, window.end_ns is not None, number, due_ns, phases)


def growing_timing() -> Timing:
    """Return the timing of a schedule without rows, which grows while it runs; its window is not known yet."""
    none, phases = np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int8)
    return Timing(Loop.OPEN, None, 0, Window(NOT_KNOWN_NS, None), True, None, none, phases, grows=True)


def trace_timing(warmup_s: float, due_ns: Int64, *, sessions: bool = False) -> Timing:
    """Return the timing of recorded requests or `sessions`; requests due before `warmup_s` are not measured."""
    window = Window(_ns(warmup_s), None)
    phases = np.where(due_ns < window.start_ns, _WARMUP, _MEASURE).astype(np.int8)
    loop = Loop.PARTLY_OPEN if sessions else Loop.OPEN
    return Timing(loop, len(due_ns), 0, window, False, None, due_ns, phases)


def _warmup(load: Any, seed: int, start_ns: int) -> Int64:
    shape, random, rate = load.shape, generator(seed, _WARMUP_GAPS), load.opening_rate
    if start_ns == 0 or not rate:
        return np.empty(0, dtype=np.int64)
    process = Process(load.arrivals)
    if isinstance(shape, Bursts):
        return arrivals.changing(shape, process, random, cv=_cv(load), end_ns=start_ns, anchor_ns=start_ns)
    if process is Process.CONSTANT:  # Backwards, so that the first measured request comes a full gap later.
        return start_ns - arrivals.constant(rate, end_ns=start_ns + 1)[:0:-1]
    return arrivals.steady(process, rate, random, cv=_cv(load), end_ns=start_ns)


def _measured(load: Any, seed: int, start_ns: int, timeout_ns: int) -> tuple[Int64, Window]:
    """Return the arrivals of window and cooldown, and the window."""
    spike = getattr(load, "spike", None)
    extra = np.empty(0, dtype=np.int64)
    if spike is not None:
        at_ns = start_ns + _ns(spike.at_s)
        extra = arrivals.spike(spike.requests, spike.within_s, generator(seed, _SPIKE), start_ns=at_ns)
        if load.rate is None:
            return extra, Window(start_ns, None)
    number = load.measured_count
    if number is None:
        end_ns = start_ns + _ns(load.measured_s)
        base = _base(load, seed, start_ns, end_ns=end_ns + timeout_ns)
        return np.sort(np.concatenate([base, extra]), kind="stable"), Window(start_ns, end_ns)
    base = _base(load, seed, start_ns, count=2 * number + 1)
    end_ns = int(base[number])
    further = int(np.searchsorted(base[number : 2 * number], end_ns + timeout_ns))
    return base[: number + further], Window(start_ns, end_ns)


def _base(load: Any, seed: int, start_ns: int, **limit: int) -> Int64:
    shape, random, process = load.shape, generator(seed, _GAPS), Process(load.arrivals)
    limits: Any = {"start_ns": start_ns, "cv": _cv(load), **limit}
    if shape is None:
        return arrivals.steady(process, load.rate, random, **limits)
    return arrivals.changing(shape, process, random, anchor_ns=start_ns, **limits)


def _cv(load: Any) -> float:
    return 1.0 if load.cv is None else float(load.cv)


def _ns(seconds: float) -> int:
    return round(seconds * NS_PER_S)
