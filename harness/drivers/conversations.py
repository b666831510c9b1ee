"""History of running conversations, and the times at which requests are cancelled."""

from __future__ import annotations

import heapq
from collections.abc import Iterator

from engines.base import ChunkKind, Request, Turn
from engines.dialects.base import Pieces
from harness.drivers.timeline import NS_PER_S, Outcome
from harness.records import TURN_NOT_SENT, Status
from harness.schedule.requests import Row, Schedule

_GOES_ON = (Status.OK, Status.CANCELLED)


class Conversations:
    """History of each conversation with a turn to come, so that later turns carry the real replies.

    A conversation continues after a turn that succeeded or was cancelled by the plan, with the reply so far. After a
    failed turn its later turns are not sent.
    """

    def __init__(self, schedule: Schedule) -> None:
        self._schedule = schedule
        self._history: dict[int, tuple[Turn, ...]] = {}
        self._broken: dict[int, str] = {}

    def next_turn(self, row: Row) -> int | None:
        """Return the request that needs the reply to this one, if there is one."""
        following = None if row.session is None else self._schedule.follower(row.request)
        return following if following is not None and self._schedule.is_later_turn(following) else None

    def request(self, i: int) -> Request:
        """Return request i with the conversation before it."""
        if not self._history or not self._schedule.is_later_turn(i):
            return self._schedule.request(i)
        session = self._schedule.row(i).session
        return self._schedule.request(i, () if session is None else self._history.get(session, ()))

    def add_reply(self, row: Row, outcome: Outcome) -> int | None:
        """Store the reply of a turn; return the request that can be encoded now, if there is one."""
        session, following = row.session, self.next_turn(row)
        if session is None:
            return None
        if following is None:
            self._forget(session)
        elif outcome.status in _GOES_ON:
            prompt = self._schedule.request(row.request).prompt
            pieces = Pieces.of(outcome.chunks).chunks
            reply = "".join([chunk.text for chunk in pieces if chunk.kind is ChunkKind.CONTENT])
            question = prompt if isinstance(prompt, str) else ""
            self._history[session] = (*self._history.get(session, ()), Turn(question, reply))
            return following
        else:
            why = outcome.status.value.replace("_", " ")
            self._broken[session] = f"{TURN_NOT_SENT} interrupted: its turn {row.turn + 1} had failed ({why})"
        return None

    def broken(self, row: Row) -> str | None:
        """Return the reason why this turn cannot be sent, if there is one. Call once per turn."""
        if row.turn == 0 or row.session is None:
            return None
        why = self._broken.get(row.session)
        if why is not None and self.next_turn(row) is None:
            self._forget(row.session)
        return why

    def _forget(self, session: int) -> None:
        self._history.pop(session, None)
        self._broken.pop(session, None)


class Timers:
    """Queue of requests by the absolute times at which something happens to them."""

    def __init__(self) -> None:
        self._times: list[tuple[int, int]] = []

    def add(self, request: int, at_ns: int) -> None:
        heapq.heappush(self._times, (at_ns, request))

    @property
    def next_ns(self) -> int | None:
        return self._times[0][0] if self._times else None

    def take(self, now_ns: int) -> Iterator[int]:
        """Remove and yield the requests whose time has passed."""
        while self._times and self._times[0][0] <= now_ns:
            yield heapq.heappop(self._times)[1]


def cancel_reason(row: Row) -> str:
    """Return the error of a cancelled request's record."""
    return f"cancelled by the load generator {(row.cancel_ns or 0) / NS_PER_S:g} s after it was sent, as planned"
