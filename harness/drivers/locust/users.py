"""Locust's users as the plan's: who sends what is due, and what Locust hears of each request.

A closed loop's users are Locust users, each of which sends its own requests in turn when the plan's clock says so. An
open loop is not made of users: its requests leave at their due times from one dispatcher, and Locust's single user
stands for it. Whatever Locust does with its users (more of them from the web page, fewer after a worker was lost), the
plan is carried out: a request whose user has no Locust user is sent by the dispatcher.
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
    """Failure of a request as Locust shows it: the status and the sentence."""


class Seat:
    """The place where a Locust user waits for the requests of one user of the plan, and sends them.

    The client wakes it directly and goes on when it has sent, with no turn of gevent's hub between: many users'
    requests fall due together.
    """

    def __init__(self) -> None:
        self._user = greenlet.getcurrent()
        self._client = self._user
        self._send: Send | None = None
        self._error: Exception | None = None

    def work(self) -> NoReturn:
        """Send what is handed over, one after the other, until the user is stopped. In the user's greenlet."""
        back: greenlet.greenlet = gevent.get_hub()
        while True:
            back.switch()
            assert self._send is not None
            try:
                self._send()
            except Exception as error:  # it is the client's, who is waiting for us
                self._error = error
            back = self._client

    def hand_over(self, send: Send) -> None:
        """Let the user send this now. In the client's greenlet; raises what `send` raises."""
        self._client, self._send, self._error = greenlet.getcurrent(), send, None
        self._user.switch()
        if self._error is not None:
            raise self._error


class Seats:
    """Which Locust user is which user of the plan. users: their numbers in the plan; none for an open loop."""

    def __init__(self, users: Iterable[int] = ()) -> None:
        self.reserve(users)
        self._taken: dict[int, Seat] = {}

    def reserve(self, users: Iterable[int]) -> None:
        """These are the users of the plan, where they were not known at first."""
        self._free = sorted(users, reverse=True)

    def sit(self) -> None:
        """Be a user of the plan until stopped; one that has no user of the plan to be only waits. Never returns."""
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
        """Let the Locust user of this user of the plan send; where there is none, send from here."""
        seat = self._taken.get(user) if user is not None else None
        if seat is None:
            send()
        else:
            seat.hand_over(send)


def user_class(seats: Seats) -> type[User]:
    """The class of Locust's users for a trial."""

    class PlannedUser(User):
        """Sends what the plan gives it, one request after the other; think times are the plan's."""

        wait_time = constant(0)

        @task
        def send_what_falls_due(self) -> None:
            """Send the own requests, each when it falls due, until stopped."""
            seats.sit()

    return PlannedUser


def tell(environment: Any, record: Record, t0_utc_s: float) -> None:
    """Fire Locust's request event for a record: the request's name is its class, its time from sent to the last token.

    Requests never sent, cut off at the end or cancelled by the plan are no requests to Locust. The time to the first
    token is a second entry, type `ttft`, in the statistics only: the event would count the request twice.
    t0_utc_s: T0 as time since the epoch.
    """
    if record.status in UNSEEN or record.sent_ns is None:
        return
    name = record.class_name if record.phase == Phase.MEASURE else f"{record.class_name} ({record.phase})"
    ends_ns = record.done_ns if record.last_token_ns is None else record.last_token_ns
    ttft_ms = None if record.first_token_ns is None else (record.first_token_ns - record.sent_ns) / NS_PER_MS
    failed = (
        None if record.status == Status.OK else RequestFailed(f"{record.status}: {record.error or 'no reason known'}")
    )
    environment.events.request.fire(
        request_type="e2e",
        name=name,
        response_time=0.0 if ends_ns is None else (ends_ns - record.sent_ns) / NS_PER_MS,
        response_length=0,
        response=None,
        exception=failed,
        start_time=t0_utc_s + record.sent_ns / NS_PER_S,
        url=environment.host,
        context=_context(record, ttft_ms),
    )
    if ttft_ms is not None:
        environment.stats.get(name, TTFT).log(ttft_ms, 0)


def _context(record: Record, ttft_ms: float | None) -> dict[str, Any]:
    """Return what exporters that listen to the event may want besides."""
    return {
        "request": record.request,
        "class": record.class_name,
        "user": record.user,
        "phase": str(record.phase),
        "status": str(record.status),
        "ttft_ms": ttft_ms,
        "output_tokens": record.output_tokens,
    }
