"""Interface of a driver: its settings, its control from outside, and its report about itself."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from harness.records import Record
from harness.schedule.requests import WHOLE, Shard

Sink = Callable[[Record], None]


@dataclass(frozen=True, slots=True)
class DriveSettings:
    """Treatment of the requests of a trial.

    Attributes:
        timeout_ns: Longest time from due to done.
        drain_ns: After `Control.stop()`, time left for requests in flight. None: until their own time-outs.
        warm_connections: Connections opened before the clock starts. None: as many as the plan needs, at most 64 in
            open loops, because servers with a thread per connection give idle connections their threads.
        canary_port: Port of the canary's server on this machine, if there is one.
        recount: Count a few replies again with the model's own tokenizer, after the load.
    """

    timeout_ns: int
    keep_chunks: bool = True
    keep_text: bool = False
    drain_ns: int | None = None
    warm_connections: int | None = None
    canary_port: int | None = None
    recount: bool = True


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
    """

    shard: Shard = WHOLE
    start: Callable[[], Awaitable[int]] | None = None
    counted: Callable[[], None] | None = None
    hand_over: Callable[[int | None, Callable[[], None]], None] | None = None


ALONE = Part()


class Control:
    """Control of a trial from outside, in the thread of its loop (signal handlers of the loop included)."""

    def __init__(self) -> None:
        self.stopped = False
        self.aborted = False
        self.released = False
        self._wake: Callable[[], None] | None = None
        self._begun: Callable[[int], None] | None = None

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
        """Announce T0."""
        if self._begun is not None:
            self._begun(t0_ns)

    def _notify(self) -> None:
        if self._wake is not None:
            self._wake()


@dataclass(slots=True)
class DriveReport:
    """Measurements of the load generator about itself; None where nothing was measured.

    Attributes:
        t0_ns: T0 on the monotonic clock.
        planned: Rows of the plan; None if it has no end.
        measured_until_ns: In closed loops limited by requests: due time of the first unmeasured one, as an offset from
            T0.
        clock: "kernel" if the kernel stamped the arrivals of every answered request, else "loop".
        heartbeat_p99_ms: Lateness of a 10 ms tick.
        cpu_share: CPU seconds of this process per second of the trial.
        merged_read_share: Share of the token-bearing chunks that shared a read with other chunks.
        chunk_lag_p99_ms: Time from arrival to read.
        resends: Requests sent again because their connection had been closed before the server read them.
        unreadable_events: Events of replies that could not be read and were skipped.
        impossible_counts: Token counts in replies that cannot be true. They are treated as unknown.
        connections_in_window: Connections opened after T0.
        cpu_peak_share: CPU share of the loop's thread in the worst whole second.
        equal_gap_share: Share of the gaps between chunks that are identical in three or more replies.
        canary_p50_ms: Recorded arrival minus the sending time inside the event; see `drivers.canary`.
        throttled_periods: With `throttled_ms` and `steal_share`: CPU time withheld by the machine since T0.
        open_files_share: Peak use of the limit in any second; likewise `ports_share`.
        recounted: (request, tokens of its text by the model's tokenizer) of a few replies, until they are stored.
        workers: Report of each load process. The values above are then the worst or the sum.
    """

    t0_ns: int
    planned: int | None
    measured_until_ns: int | None = None
    recorded: int = 0
    not_sent: int = 0
    cooldown: int = 0
    interrupted: bool = False
    clock: str = "loop"
    send_lag_p50_ms: float | None = None
    send_lag_p99_ms: float | None = None
    send_lag_max_ms: float | None = None
    heartbeat_p99_ms: float | None = None
    cpu_share: float | None = None
    merged_read_share: float | None = None
    chunk_lag_p99_ms: float | None = None
    connections_opened: int = 0
    resends: int = 0
    unreadable_events: int = 0
    impossible_counts: int = 0
    connect_errors: int = 0
    connections_in_window: int | None = None
    cpu_peak_share: float | None = None
    equal_gap_share: float | None = None
    canary_events: int = 0
    canary_p50_ms: float | None = None
    canary_p95_ms: float | None = None
    canary_p99_ms: float | None = None
    canary_max_ms: float | None = None
    throttled_periods: int | None = None
    throttled_ms: float | None = None
    steal_share: float | None = None
    open_files_share: float | None = None
    ports_share: float | None = None
    notes: list[str] = field(default_factory=list)
    recounted: list[tuple[int, int]] = field(default_factory=list)
    workers: list[dict[str, Any]] = field(default_factory=list)
