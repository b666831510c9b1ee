"""What a driver is given, how it is told to stop, and what it says about itself."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from harness.records import Record
from harness.schedule.requests import WHOLE, Shard

Sink = Callable[[Record], None]


@dataclass(frozen=True, slots=True)
class DriveSettings:
    """How the requests of a trial are treated.

    timeout_ns: how long after its due time a request may take.
    keep_chunks, keep_text: whether records hold their chunk lists and texts.
    drain_ns: after `Control.stop()`, how long the requests in flight may still take; None: until their own time-outs.
    warm_connections: connections opened before the clock starts; None: as many as the plan needs, at most 64 in open
    loops, because servers with a thread per connection give idle connections their threads.
    canary_port: where the canary's server listens on this machine; None: there is none.
    recount: whether a few replies are counted once more by the model's own tokenizer, when the load is over.
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
    """One of several processes that share a plan: which rows are its own, and how it keeps step with the others.

    start: awaited when the connections are open and the first requests encoded; gives T0, absolute, in the future.
    counted: called once, when nothing of this part's own that counts is still to be sent or in flight. Load that goes
    on after the window is offered until `Control.release`: the other parts' requests are still to be measured.
    hand_over: called with the user's number (None in open loops) and what sends the user's next request, due now, in
    place of sending it; that is to be called at once, from the same thread (Locust's users do it). Served engines only.
    """

    shard: Shard = WHOLE
    start: Callable[[], Awaitable[int]] | None = None
    counted: Callable[[], None] | None = None
    hand_over: Callable[[int | None, Callable[[], None]], None] | None = None


ALONE = Part()


class Control:
    """How a trial is ended from outside, from the thread of its loop (signal handlers of the loop included)."""

    def __init__(self) -> None:
        self.stopped = False
        self.aborted = False
        self.released = False
        self._wake: Callable[[], None] | None = None
        self._begun: Callable[[int], None] | None = None

    def stop(self) -> None:
        """Offer nothing more; let what is in flight end within `drain_ns`."""
        self.stopped = True
        self._notify()

    def abort(self) -> None:
        """End at once: what is in flight becomes `unfinished`, the rest of an open plan `not_sent`."""
        self.stopped = self.aborted = True
        self._notify()

    def release(self) -> None:
        """Every part's requests that count have ended: a part that went on for the others' sake may end."""
        self.released = True
        self._notify()

    def obey(self, order: str) -> None:
        """Carry out an order by its name."""
        {"stop": self.stop, "abort": self.abort, "release": self.release}[order]()

    @property
    def order(self) -> str | None:
        """The name of the order to end the trial that was given, if one was."""
        return "abort" if self.aborted else "stop" if self.stopped else None

    def on_change(self, wake: Callable[[], None] | None) -> None:
        """What the driver wants called after each of the above."""
        self._wake = wake

    def on_begin(self, begun: Callable[[int], None] | None) -> None:
        """What is to be called once T0 is fixed, with it: absolute, on the monotonic clock."""
        self._begun = begun

    def begins(self, t0_ns: int) -> None:
        """T0 is fixed."""
        if self._begun is not None:
            self._begun(t0_ns)

    def _notify(self) -> None:
        if self._wake is not None:
            self._wake()


@dataclass(slots=True)
class DriveReport:
    """What the client says about itself; None where nothing was measured.

    t0_ns: the trial's T0 on the monotonic clock.   planned: rows of the plan, None when it has no end.
    send_lag: how late this client sent, over all requests sent.   heartbeat: lateness of a 10 ms tick.
    measured_until_ns: of a closed loop limited by requests: when the first one fell due, as an offset from T0, that was
    not measured any more.
    recorded, not_sent, cooldown: records handed on, those of them whose request was never sent, and those of the
    cooldown.
    cpu_share: CPU seconds of this process per second of the trial.   chunk_lag: how long arrivals waited to be read.
    cpu_peak_share: the same of the loop's thread in the worst whole second.
    merged_read_share: part of the token-bearing chunks that shared a read with others.
    equal_gap_share: part of the gaps between chunks that are the same in three replies or more.
    canary: recorded arrival minus the moment of sending that the event itself holds; see `drivers.canary`.
    resends: requests sent again, because their connection had been closed before they were read.
    unreadable_events: events of replies that could not be read and were passed over.
    impossible_counts: statements of token counts in replies that cannot be true; these counts are unknown.
    connections_opened: before T0 and after; connections_in_window: after T0.
    throttled_periods, throttled_ms, steal_share: what the machine withheld from T0 to the end (see `pressure`).
    open_files_share, ports_share: the most of the limit that was in use at any second.
    clock: "kernel" when the kernel stamped the arrivals of every request that got an answer, else "loop".
    recounted: (request, tokens of its text by the model's tokenizer) of a few replies, until they are stored.
    workers: where several processes sent the load, the report of each; what stands above is then the worst or the sum.
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
