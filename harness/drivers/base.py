"""Interface of a driver: its settings, its control from outside, and its report about itself."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from harness.drivers.retry_policy import RetryPolicy
from harness.records import Record
from harness.schedule.requests import WHOLE, Shard

Sink = Callable[[Record], None]
HandOver = Callable[[int | None, Callable[[], None]], None]


@dataclass(frozen=True, slots=True)
class DriveSettings:
    """Treatment of the requests of a trial.

    `warm_connections` None: as many as the plan needs. In open loops at most 64, because servers with a thread per
    connection give idle connections their threads; of requests due together one each, at most 1,024.
    """

    timeout_ns: int  # longest time from due to done
    keep_chunks: bool = True
    keep_text: bool = False
    drain_ns: int | None = None  # time left for requests in flight after `Control.stop()`; None: their own time-outs
    warm_connections: int | None = None  # connections opened before the clock starts
    canary_port: int | None = None  # of the canary's server on this machine
    most_in_flight: int | None = None  # requests in flight at the same time beside a rate; None: no cap
    retries: RetryPolicy | None = None  # None: each request is sent once
    recount: bool = True  # count a few replies again with the model's own tokenizer, after the load


@dataclass(frozen=True, slots=True)
class Part:
    """Share of a plan that one of several processes sends, and its synchronisation with the others.

    Attributes:
        start: Awaited when the connections are open and the first requests encoded. Returns T0, absolute, in the
            future.
        counted: Called once, when this part has no counting request left to send or in flight. Load after the window
            goes on until `Control.release`, because the other parts are still measuring.
        hand_over: Called with the user's number (None in open loops) and a function that sends the user's due request.
            It must call that function at once, in the same thread. Only for served engines (Locust).
        processes: Load processes of this machine, which share its memory.
    """

    shard: Shard = WHOLE
    start: Callable[[], Awaitable[int]] | None = None
    counted: Callable[[], None] | None = None
    hand_over: HandOver | None = None
    processes: int = 1


ALONE = Part()


class Control:
    """Control of a trial from outside, in the thread of its loop (signal handlers of the loop included)."""

    def __init__(self) -> None:
        self.stopped = self.aborted = self.released = False
        self.grown = False
        self._wake: Callable[[], None] | None = None
        self._begun: Callable[[int], None] | None = None
        self.t0_ns: int | None = None  # absolute, monotonic; None before the trial starts

    def stop(self) -> None:
        """Send no new request; requests in flight may end within `drain_ns`."""
        self.stopped = True
        self._notify()

    def abort(self) -> None:
        """End at once: requests in flight become `unfinished`, the rest of an open plan `not_sent`."""
        self.stopped = self.aborted = True
        self._notify()

    def release(self) -> None:
        """Let a part end that went on only for the other parts: no part has a counting request left."""
        self.released = True
        self._notify()

    def grow(self) -> None:
        """Send the rows that the schedule has now: those that were taken are its first ones."""
        self.grown = True
        self._notify()

    def obey(self, order: str) -> None:
        """Carry out an order, given by its name."""
        {"stop": self.stop, "abort": self.abort, "release": self.release}[order]()

    @property
    def order(self) -> str | None:
        """Name of the order to end the trial, if there was one."""
        return "abort" if self.aborted else "stop" if self.stopped else None

    def on_change(self, wake: Callable[[], None] | None) -> None:
        """Register a callback for every change of this control."""
        self._wake = wake

    def on_begin(self, begun: Callable[[int], None] | None) -> None:
        """Register a callback invoked with T0 (absolute, monotonic) when the trial starts."""
        self._begun = begun

    def begins(self, t0_ns: int) -> None:
        self.t0_ns = t0_ns
        if self._begun is not None:
            self._begun(t0_ns)

    @contextlib.contextmanager
    def one_try(self) -> Iterator[Control]:
        """Yield a control of one try at the trial: it gets the orders of this one, and can be ended by itself."""
        one = Control()
        one.on_begin(self.begins)

        def pass_on() -> None:
            if self.order is not None:
                one.obey(self.order)

        self.on_change(pass_on)
        pass_on()
        try:
            yield one
        finally:
            self.on_change(None)

    def _notify(self) -> None:
        if self._wake is not None:
            self._wake()


@dataclass(slots=True)
class DriveReport:
    """Measurements of the load generator about itself; None where nothing was measured."""

    t0_ns: int  # on the monotonic clock
    planned: int | None  # rows of the plan; None if it has no end
    measured_until_ns: int | None = None  # offset of the first unmeasured due time, in closed loops limited by requests
    recorded: int = 0
    not_sent: int = 0
    cooldown: int = 0
    interrupted: bool = False
    clock: str = "loop"  # "kernel" if the kernel stamped the arrivals of every answered request
    send_lag_p50_ms: float | None = None
    send_lag_p99_ms: float | None = None
    send_lag_max_ms: float | None = None
    heartbeat_p99_ms: float | None = None  # lateness of a 10 ms tick
    cpu_share: float | None = None  # CPU seconds of this process per second of the trial
    merged_read_share: float | None = None  # of the token-bearing chunks: shared a read with other chunks
    chunk_lag_p99_ms: float | None = None  # from arrival to read
    connections_opened: int = 0
    resends: int = 0  # requests sent again: their connection had been closed before the server read them
    retried: dict[str, int] = field(default_factory=dict)  # failed attempts with another after them, by cause
    unreadable_events: int = 0  # skipped events of replies
    impossible_counts: int = 0  # token counts in replies that cannot be true; treated as unknown
    connect_errors: int = 0
    connections_in_window: int | None = None  # opened after T0
    cpu_peak_share: float | None = None  # of the loop's thread in the worst whole second
    canary_events: int = 0
    canary_p50_ms: float | None = None  # recorded arrival minus the sending time inside the event
    canary_p95_ms: float | None = None
    canary_p99_ms: float | None = None
    canary_max_ms: float | None = None
    throttled_periods: int | None = None  # this and the next two: CPU time withheld by the machine since T0
    throttled_ms: float | None = None
    steal_share: float | None = None
    open_files_share: float | None = None  # peak use of the limit in any second; the next likewise
    ports_share: float | None = None
    notes: list[str] = field(default_factory=list)
    recounted: list[tuple[int, int]] = field(default_factory=list)  # (request, tokens of its text), until stored
    workers: list[dict[str, Any]] = field(default_factory=list)  # reports of the load processes, if several
