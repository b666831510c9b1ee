"""Retries: whether a failed request is sent again, when, and what the attempts before ended with.

A request that waits for its next attempt is in flight: it keeps its place, its time-out and its due time.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from harness.drivers.conversations import Timers
from harness.drivers.http.connection import Exchange
from harness.drivers.http.response import ResponseReader
from harness.drivers.outcome import Cut
from harness.drivers.retry_policy import RetryPolicy
from harness.drivers.timeline import Attempt
from harness.records import Status, exhausted

CONNECT = "connect"


@dataclass(frozen=True, slots=True)
class _Failed:
    """Attempt that failed, before the next one: the end that the request has if there is none."""

    exchange: Exchange
    cut: Cut | None
    cause: str


class Retries:
    """Requests that wait for their next attempt. `counts` has the failed attempts that were followed by another."""

    def __init__(self, policy: RetryPolicy, timeout_ns: int, counts: dict[str, int]) -> None:
        self._policy, self._timeout_ns, self._counts = policy, timeout_ns, counts
        self._timers = Timers()
        self._waiting: dict[int, _Failed] = {}

    @property
    def next_ns(self) -> int | None:
        """When the next attempt is due."""
        return self._timers.next_ns

    def put_off(self, exchange: Exchange, cut: Cut | None) -> bool:
        """Plan the next attempt of a request whose attempt has ended; return False if there is none."""
        trace = exchange.trace
        cause = self._cause(exchange.reply, cut)
        if cause is None or trace.retries >= self._policy.times or trace.done_ns is None:
            return False
        at_ns = trace.done_ns + self._wait_ns(exchange.reply, trace.retries)
        if at_ns >= trace.due_ns + self._timeout_ns:
            return False
        self._waiting[trace.row.request] = _Failed(exchange, cut, cause)
        self._timers.add(trace.row.request, at_ns)
        return True

    def take(self, now_ns: int) -> Iterator[Exchange]:
        """Yield the requests to send now, ready for their next attempt. Those that were cut off are passed over."""
        for request in self._timers.take(now_ns):
            failed = self._waiting.pop(request, None)
            if failed is not None:
                self._counts[failed.cause] = self._counts.get(failed.cause, 0) + 1
                yield _begun_again(failed.exchange, failed.cause)

    def forget(self, request: int) -> None:
        """Drop a request that was cut off."""
        self._waiting.pop(request, None)

    def give_up(self) -> Iterator[tuple[Exchange, Cut | None]]:
        """Yield the requests that wait, with the end of their last attempt. They have no other."""
        waiting, self._waiting = self._waiting, {}
        for failed in waiting.values():
            yield failed.exchange, failed.cut

    def _cause(self, reply: ResponseReader, cut: Cut | None) -> str | None:
        """Return the name of a failure that allows a retry; None for any other end, and for a reply that has begun."""
        if cut is None:
            known = reply.complete and reply.failure is None and reply.status in self._policy.statuses
            return f"HTTP {reply.status}" if known else None
        refused = cut.status is Status.CONNECTION_ERROR and not reply.started and not exhausted(cut.reason)
        return CONNECT if refused and self._policy.connect else None

    def _wait_ns(self, reply: ResponseReader, retries: int) -> int:
        """Return the wait that the server asks for, or that of the policy, which doubles."""
        try:
            asked_s = float(reply.headers.get("retry-after", ""))
        except ValueError:  # none, or a date
            asked_s = math.nan
        return round(asked_s * 1e9) if 0 <= asked_s < math.inf else self._policy.wait_ns << retries


def _begun_again(exchange: Exchange, cause: str) -> Exchange:
    """Return the exchange without what its last attempt left. Its first sending stays the beginning."""
    trace = exchange.trace
    exchange.reply.release()  # it and its parser hold each other, and nothing collects them during a load
    exchange.reply = ResponseReader()
    trace.attempts.append(Attempt(trace.attempt_sent_ns, trace.done_ns, cause))
    trace.attempt_sent_ns = trace.done_ns = None
    trace.stamps.clear()
    trace.read_ns.clear()
    return exchange
