"""Client of engines behind a socket: sends due requests, stamps replies, decodes them later."""

from __future__ import annotations

import asyncio
import functools
import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from time import monotonic_ns

from engines.base import Endpoint
from engines.dialects import of as dialect_of
from engines.dialects.base import Dialect
from engines.secrets import hide_headers
from harness.drivers.canary import Canary
from harness.drivers.conversations import Timers, cancel_reason
from harness.drivers.due_queue import Prepared
from harness.drivers.http.connection import Exchange
from harness.drivers.http.pacing import make_alarm
from harness.drivers.http.place import Place
from harness.drivers.http.poller import Poller
from harness.drivers.http.pool import REFUSED, Pool
from harness.drivers.http.response import MOST_BYTES, ResponseReader
from harness.drivers.outcome import Cut, judge
from harness.drivers.retries import Retries
from harness.drivers.timeline import NS_PER_MS, StampClock
from harness.drivers.trial import Client, TrialState
from harness.records import FAILED, Status
from harness.telemetry.cgroup import free_memory_bytes

_QUIET_NS = 400_000  # least duration of deferred work: none begins when a request falls due sooner
_DECODING_NS_PER_BYTE = 10.0  # initial estimate; then measured
_DECODING_NS_PER_ROUND = 20_000_000  # limit for a full backlog, so that reads are not delayed
_TELLING_BYTES = 8_192  # shorter replies do not change the estimate
_BURST_NS = 1_000_000  # a burst is sent in slices, so that early replies are read in between
_BACKLOG_READS = 128_000
_BACKLOG_REPLIES = 16_384
_BACKLOG_BYTES = 32 << 20
_MOST_REPLIES = 256  # undecoded replies of running conversations, whose users are thinking
_CATCH_UP_READS = 4
_SHARE_OF_FREE_MEMORY = 0.5  # for replies in flight, of all load processes of this machine
_TICKS_BETWEEN_SUMS = 25


@dataclass(slots=True)
class Way:
    """How requests of a class are written.

    Attributes:
        headers: Names in lower case.
        heads: Start of a request by place and path.
    """

    dialect: Dialect
    model: str | None
    headers: Mapping[str, str]
    heads: dict[tuple[Place, str], bytes] = field(default_factory=dict)

    @classmethod
    def of(cls, endpoint: Endpoint) -> Way:
        headers = {name.lower(): value for name, value in endpoint.headers.items()}
        return cls(dialect_of(endpoint), endpoint.model, headers)


class ServedClient(Client):
    """Sends one trial to an endpoint.

    Replies are decoded when nothing is ready to be read and nothing is about to fall due. The backlog is limited to
    about 128,000 reads and 32 MiB.
    """

    def __init__(
        self, state: TrialState, endpoint: Endpoint, places: list[Place], loop: asyncio.AbstractEventLoop
    ) -> None:
        self._poller = Poller(loop, self._idle, state.fail, self._begin_round)
        super().__init__(state, loop, self._poller)
        self._dialect = dialect_of(endpoint)
        self._own = {name: Way.of(endpoint.of_class(name)) for name in endpoint.classes}
        self._way = Way.of(endpoint)
        hide_headers(endpoint.headers)
        self._in_flight: dict[int, Exchange] = {}
        self._backlog: deque[tuple[Exchange, Cut | None]] = deque()
        self._backlog_reads = self._backlog_bytes = 0
        self._behind: list[Exchange] = []
        self._followers_due = False
        self._ns_per_byte = _DECODING_NS_PER_BYTE
        self._decoded_ns = 0  # in this round of reads
        self._stamps = StampClock()
        self.pools = [Pool(self._poller, place, self._stamps, self, state.report) for place in places]
        self._prepared = Prepared(self._encoded, self._queue, lambda made: len(made[0]), max(256, state.schedule.users))
        self._replies: dict[int, tuple[Exchange, Cut | None]] = {}  # by conversation, for its next turn
        self._cancellations = Timers()
        self._cancel_alarm = make_alarm(loop, self._poller, self._cancel_due, state.now_ns)
        policy, timeout_ns = state.settings.retries, state.settings.timeout_ns
        self._retries = None if policy is None else Retries(policy, timeout_ns, state.report.retried)
        self._retry_alarm = None if policy is None else make_alarm(loop, self._poller, self._retry_due, state.now_ns)
        self._ticks = 0
        self._most_held = int(free_memory_bytes() * _SHARE_OF_FREE_MEMORY / state.part.processes)
        port = state.settings.canary_port
        self._canary = None if port is None else Canary(self._poller, self._stamps, port)

    def prepare(self) -> None:
        self._prepared.fill()

    def start(self) -> None:
        if self._canary is not None:
            self._canary.start()
        self._poller.wake()
        super().start()

    def close(self) -> None:
        """Close every connection and alarm; report the canary and resends."""
        for exchange in self._in_flight.values():
            exchange.reply.release()
            if exchange.connection is not None:
                exchange.connection.close()
        for pool in self.pools:
            pool.close()
        if self._canary is not None:
            self._canary.close()
            self._canary.fill(self._state.report)
        super().close()
        self._cancel_alarm.close()
        if self._retry_alarm is not None:
            self._retry_alarm.close()
        self._poller.close()
        if resends := self._state.report.resends:
            again = "1 request was" if resends == 1 else f"{resends} requests were"
            self._state.report.notes.append(
                f"{again} sent again on a new connection: the server had closed the old one before it read the request"
            )

    def control_changed(self) -> None:
        """React to an order. After a stop no request is sent again."""
        if self._retries is not None and self._state.control.stopped:
            for exchange, cut in self._retries.give_up():
                self._end(exchange, cut)
        super().control_changed()

    # Called by the pools:

    def ended(self, exchange: Exchange, cut: Cut | None = None) -> None:
        """End an attempt at a request, and the request unless it is sent again."""
        exchange.connection = None
        if self._retries is not None and self._retry_alarm is not None:
            self._retries.forget(exchange.due.row.request)
            if not (self._ending or self._state.control.stopped) and self._retries.put_off(exchange, cut):
                self._retry_alarm.set(self._retries.next_ns)
                return
        self._end(exchange, cut)

    def _end(self, exchange: Exchange, cut: Cut | None) -> None:
        """End a request: its follower is due in the next round, its reply is decoded later."""
        due = exchange.due
        self._followers_due = True
        self._in_flight.pop(due.row.request, None)
        exchange.payload = b""
        row = exchange.trace.row
        if row.session is not None and self._conversations.next_turn(row) is not None:
            self._replies[row.session] = exchange, cut
            if len(self._replies) > _MOST_REPLIES:
                self._read_reply(next(iter(self._replies)))
        else:
            self._backlog.append((exchange, cut))
            self._backlog_reads += len(exchange.trace.read_ns)
            self._backlog_bytes += exchange.reply.size
        reply = exchange.reply
        failed = reply.status >= REFUSED or not reply.complete if cut is None else cut.status in FAILED
        assert exchange.trace.done_ns is not None
        self._queue.ended(due, exchange.trace.done_ns, failed=failed)
        full = self._backlog_reads > _BACKLOG_READS or self._backlog_bytes > _BACKLOG_BYTES
        if (full or len(self._backlog) > _BACKLOG_REPLIES) and self._decoded_ns < _DECODING_NS_PER_ROUND:
            self._decode_one()  # one per ended request, so that many endings at once cause no stall

    def lost(self, exchange: Exchange, reason: str, *, again: bool) -> None:
        if again:
            exchange.trace.resends = 1
            self._state.report.resends += 1
            self._send(exchange, fresh=True)
        else:
            self._fail(exchange, reason)

    # Sending:

    def _begin_round(self) -> None:
        """Send the followers of the last round's replies, before the next round of reads.

        They are not sent as each reply ends. When hundreds end together, the sends would delay the reads: one read
        would then hold several tokens.
        """
        self._stamps.sample()
        self._decoded_ns = 0
        if self._followers_due:
            self._followers_due = False
            self._dispatch()

    def _encoded(self, request: int) -> tuple[bytes, bool]:
        wanted = self._conversations.request(request)
        way = self._own.get(wanted.class_name, self._way)
        wire = way.dialect.encode(wanted, way.model)
        place = self._pool(request).place
        head = way.heads.get((place, wire.path))
        if head is None:
            head = way.heads[place, wire.path] = place.head(wire.method, wire.path, {**wire.headers, **way.headers})
        return b"%b%d\r\n\r\n%b" % (head, len(wire.body), wire.body), wanted.stream

    def _dispatch(self) -> None:
        if self._ending:
            return
        queue = self._queue
        pause_ns = self._now_ns() + _BURST_NS
        while not queue.over:
            due_ns = queue.next_due_ns
            now_ns = self._now_ns()
            if due_ns is None or due_ns > now_ns or now_ns > pause_ns:
                break
            due = queue.take()
            if due.row.turn:
                self._read_reply(due.row.session)  # its failure would be the reason not to send
            if self._given_up(due, now_ns):
                continue
            payload, streams = self._prepared.take(due)
            exchange = Exchange(self._state.trace(due), payload, ResponseReader(), due, streams)
            if len(self.pools) > 1:
                exchange.trace.backend = self._pool(due.row.request).place.address.url
            self._in_flight[due.row.request] = exchange
            if due.row.cancel_ns is not None:
                self._cancellations.add(due.row.request, self._now_ns() + due.row.cancel_ns)
                self._cancel_alarm.set(self._cancellations.next_ns)
            hand_over = self._state.part.hand_over
            if hand_over is None:
                self._send(exchange)
            else:
                hand_over(due.row.user, functools.partial(self._send_handed_over, exchange))
        self._alarm.set(queue.next_due_ns)
        self._end_if_over()

    def _pool(self, request: int) -> Pool:
        """Return the connections to a request's server: requests go round the servers."""
        return self.pools[self._state.schedule.turn_in_round(request) % len(self.pools)]

    def _send(self, exchange: Exchange, *, fresh: bool = False) -> None:
        try:
            connection = self._pool(exchange.due.row.request).take(fresh=fresh)
        except OSError as error:
            self._fail(exchange, f"no connection can be opened: {error.strerror}")
        else:
            connection.send(exchange)

    def _send_handed_over(self, exchange: Exchange) -> None:
        """Send unless the request has been cut off in the meantime."""
        if exchange.due.row.request in self._in_flight:
            self._send(exchange)

    def _retry_due(self) -> None:
        """Send the requests again whose wait is over."""
        assert self._retries is not None
        assert self._retry_alarm is not None
        for exchange in self._retries.take(self._now_ns()):
            self._send(exchange)
        self._retry_alarm.set(self._retries.next_ns)

    def _cancel_due(self) -> None:
        """Cancel the requests whose planned time is over. A request that has not left yet gets its full time."""
        now_ns = self._now_ns()
        cancelled = False
        for request in self._cancellations.take(now_ns):
            exchange = self._in_flight.get(request)
            if exchange is None:
                continue
            row, sent_ns = exchange.trace.row, exchange.trace.sent_ns
            at_ns = (now_ns if sent_ns is None else sent_ns) + (row.cancel_ns or 0)
            if at_ns > now_ns or sent_ns is None:
                self._cancellations.add(request, max(at_ns, now_ns + NS_PER_MS))
            else:
                self._cut(exchange, Cut(Status.CANCELLED, cancel_reason(row)))
                cancelled = True
        self._cancel_alarm.set(self._cancellations.next_ns)
        if cancelled:
            self._dispatch()

    # Ending:

    def _cut(self, exchange: Exchange, cut: Cut) -> None:
        exchange.trace.done_ns = self._now_ns()
        if exchange.connection is not None:
            exchange.connection.close()
        self.ended(exchange, cut)

    def _fail(self, exchange: Exchange, reason: str) -> None:
        self._cut(exchange, Cut(Status.CONNECTION_ERROR, reason))
        self._poller.wake()

    def _cut_all(self, reason: str) -> None:
        for exchange in list(self._in_flight.values()):
            self._cut(exchange, Cut(Status.UNFINISHED, reason))
        self._poller.wake()

    def _tick(self, now_ns: int) -> None:
        """End requests that timed out."""
        timeout_ns = self._state.settings.timeout_ns
        if not self._behind:
            running = self._in_flight.values()
            self._behind = [exchange for exchange in running if exchange.reply.waiting >= _CATCH_UP_READS]
        late = []
        for exchange in self._in_flight.values():
            if exchange.trace.due_ns + timeout_ns > now_ns:
                break
            late.append(exchange)
        for exchange in late:
            self._cut(exchange, Cut(Status.TIMEOUT, f"not finished {timeout_ns / 1e9:g} s after it was due"))
        self._ticks += 1
        if self._ticks % _TICKS_BETWEEN_SUMS == 0:
            late += self._cut_the_longest()
        if late:
            self._dispatch()

    def _cut_the_longest(self) -> list[Exchange]:
        """End the longest replies if all in flight together exceed the memory limit."""
        if len(self._in_flight) * MOST_BYTES <= self._most_held:
            return []
        held = sum(exchange.reply.size for exchange in self._in_flight.values())
        cut = []
        for exchange in sorted(self._in_flight.values(), key=lambda one: -one.reply.size):
            if held <= self._most_held:
                break
            held -= exchange.reply.size
            why = f"the reply was cut off: all in flight together held more than {self._most_held >> 20} MiB of memory"
            self._cut(exchange, Cut(Status.TRUNCATED, why))
            cut.append(exchange)
        return cut

    def _end_if_over(self) -> None:
        self._state.report_counted()
        if self._queue.over and not self._ending and not (self._state.control.stopped and self._in_flight):
            self._ending = True
            self._cut_all("cut off: every measured request had ended")

    # Deferred work:

    def _idle(self) -> bool:
        """Do one piece of deferred work; return True if there may be more."""
        if self._followers_due:
            return True
        if self._ending and not self._backlog and not self._replies:
            if not self._state.finished.done():
                self._state.finished.set_result(None)
            return False
        due_ns = None if self._ending else self._queue.next_due_ns
        quiet_ns = math.inf if due_ns is None else due_ns - self._now_ns()
        if quiet_ns < _QUIET_NS:
            return False
        if self._replies and self._takes_ns(next(iter(self._replies.values()))) <= quiet_ns:
            self._read_reply(next(iter(self._replies)))
            return True
        if self._backlog and self._takes_ns(self._backlog[0]) <= quiet_ns:
            self._decode_one()
            return True
        if self._behind:
            self._behind.pop().reply.catch_up()
            return True
        return not self._ending and self._prepared.step()

    def _takes_ns(self, ended: tuple[Exchange, Cut | None]) -> float:
        """Estimate the time to decode a reply."""
        return ended[0].reply.size * self._ns_per_byte

    def _read_reply(self, session: int | None) -> None:
        """Decode the last reply of a conversation, unless that was done."""
        ended = None if session is None else self._replies.pop(session, None)
        if ended is not None:
            self._decode(*ended)

    def _decode_one(self) -> None:
        exchange, cut = self._backlog.popleft()
        self._backlog_reads -= len(exchange.trace.read_ns)
        self._backlog_bytes -= exchange.reply.size
        self._decode(exchange, cut)

    def _decode(self, exchange: Exchange, cut: Cut | None) -> None:
        reply = exchange.reply
        reply.release()
        self._stamps.resolve(exchange.trace)
        exchange.trace.headers_read = reply.headers_read
        exchange.trace.first_body_read = reply.first_body_read
        began_ns = monotonic_ns()
        outcome = judge(reply, self._dialect, cut, streams=exchange.streams)
        took_ns = monotonic_ns() - began_ns
        self._decoded_ns += took_ns
        if reply.size >= _TELLING_BYTES:
            self._ns_per_byte += (took_ns / reply.size - self._ns_per_byte) / 4
        next_turn = self._conversations.add_reply(exchange.trace.row, outcome)
        if next_turn is not None:
            self._prepared.want(next_turn)
        self._state.record(exchange.trace, outcome)
