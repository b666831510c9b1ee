"""Locust's users as the plan's users: they send due requests, and Locust counts each request.

In a closed loop each Locust user sends the requests of one user of the plan, at the plan's times. An open loop has no
users: one dispatcher sends the requests when due, and a single Locust user represents it. The dispatcher also sends for
users of the plan without a Locust user (after a change on the web page, or a lost worker).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NoReturn

import gevent
import greenlet
from locust import User, constant, task

from harness.drivers.timeline import NS_PER_MS, NS_PER_S
from harness.records import Phase, Record, Status

Send = Callable[[], None]
UNSEEN = (Status.NOT_SENT, Status.UNFINISHED, Status.CANCELLED)
TTFT = "ttft"


class RequestFailed(Exception):
    """Failure of a request as Locust shows it: status and sentence."""


class Seat:
    """Seat in which a Locust user waits for the requests of one user of the plan, and sends them.

    The load generator switches to it directly and continues after the sending, without a turn of gevent's hub, because
    many users' requests fall due together.
    """

    def __init__(self) -> None:
        self._user = greenlet.getcurrent()
        self._client = self._user
        self._send: Send | None = None
        self._error: Exception | None = None

    def work(self) -> NoReturn:
        """Send each request handed over, until the user is stopped. Runs in the user's greenlet."""
        back: greenlet.greenlet = gevent.get_hub()
        while True:
            back.switch()
            assert self._send is not None
            try:
                self._send()
            except Exception as error:  # raised in the load generator's greenlet, which is waiting
                self._error = error
            back = self._client

    def hand_over(self, send: Send) -> None:
        """Let the user send this now; raise its exceptions. Runs in the load generator's greenlet."""
        self._client, self._send, self._error = greenlet.getcurrent(), send, None
        self._user.switch()
        if self._error is not None:
            raise self._error


class Seats:
    """Assignment of Locust's users to the plan's users, given by their numbers; none for an open loop."""

    def __init__(self, users: Iterable[int] = ()) -> None:
        self.reserve(users)
        self._taken: dict[int, Seat] = {}

    def reserve(self, users: Iterable[int]) -> None:
        self._free = sorted(users, reverse=True)

    def sit(self) -> None:
        """Run one scheduled user in this greenlet until killed. Idles if no user is assigned."""
        if not self._free:
            gevent.get_hub().switch()
            return
        number = self._free.pop()
        self._taken[number] = seat = Seat()
        try:
            seat.work()
        finally:
            del self._taken[number]
            self._free.append(number)

    def hand_over(self, user: int | None, send: Send) -> None:
        """Let the assigned Locust user send; without one, send from here."""
        seat = self._taken.get(user) if user is not None else None
        if seat is None:
            send()
        else:
            seat.hand_over(send)


def user_class(seats: Seats) -> type[User]:
    """Return the class of Locust's users for a trial."""

    class PlannedUser(User):
        """User that sends its requests of the plan, each when it falls due; think times are the plan's."""

        wait_time = constant(0)

        @task
        def send_due_requests(self) -> None:
            seats.sit()

    return PlannedUser


def fire_request_event(environment: Any, record: Record, t0_utc_s: float) -> None:
    """Fire Locust's request event for a record, from sent to the last token, under the name of its class.

    Requests never sent, cut off at the end or cancelled by the plan are not reported. The time to the first token is a
    second entry, type `ttft`, in the statistics only: an event would count the request twice. `t0_utc_s` is T0 as time
    since the epoch.
    """
    if record.status in UNSEEN or record.sent_ns is None:
        return
    name = record.class_name if record.phase == Phase.MEASURE else f"{record.class_name} ({record.phase})"
    ends_ns = record.done_ns if record.last_token_ns is None else record.last_token_ns
    ttft_ms = None if record.first_token_ns is None else (record.first_token_ns - record.sent_ns) / NS_PER_MS
    failed = None
    if record.status != Status.OK:
        failed = RequestFailed(f"{record.status}: {record.error or 'no reason known'}")
    context = {  # for exporters that listen to the event
        "request": record.request,
        "class": record.class_name,
        "user": record.user,
        "phase": str(record.phase),
        "status": str(record.status),
        "ttft_ms": ttft_ms,
        "output_tokens": record.output_tokens,
    }
    environment.events.request.fire(
        request_type="e2e",
        name=name,
        response_time=0.0 if ends_ns is None else (ends_ns - record.sent_ns) / NS_PER_MS,
        response_length=0,
        response=None,
        exception=failed,
        start_time=t0_utc_s + record.sent_ns / NS_PER_S,
        url=environment.host,
        context=context,
    )
    if ttft_ms is not None:
        environment.stats.get(name, TTFT).log(ttft_ms, 0)
