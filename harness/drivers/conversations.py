"""What has been said in the conversations under way, so that later turns carry the replies that really came.

When requests that the plan gives up are to be given up.
"""

from __future__ import annotations

import heapq

from engines.base import ChunkKind, Request, Turn
from engines.dialects.base import Pieces
from harness.drivers.timeline import NS_PER_S, Outcome
from harness.records import BROKEN_OFF, Status
from harness.schedule.requests import Row, Schedule

_GOES_ON = (Status.OK, Status.CANCELLED)


class Conversations:
    """The history of each conversation that has a turn to come.

    A conversation goes on after a turn that succeeded, and after one that the plan gave up, with what had arrived of
    its reply. After one that failed it is broken off: its later turns are not sent.
    """

    def __init__(self, schedule: Schedule) -> None:
        self._schedule = schedule
        self._said: dict[int, tuple[Turn, ...]] = {}
        self._broken: dict[int, str] = {}

    def next_turn(self, row: Row) -> int | None:
        """The request that needs the reply to this one; None outside conversations and after their last turn."""
        following = None if row.session is None else self._schedule.follower(row.request)
        return following if following is not None and self._schedule.is_later_turn(following) else None

    def request(self, i: int) -> Request:
        """Request i with what was said before it."""
        if not self._said or not self._schedule.is_later_turn(i):
            return self._schedule.request(i)
        session = self._schedule.row(i).session
        return self._schedule.request(i, () if session is None else self._said.get(session, ()))

    def heard(self, row: Row, outcome: Outcome) -> int | None:
        """Keep what a turn has brought; gives the request that can be written now, None where there is none."""
        session, following = row.session, self.next_turn(row)
        if session is None:
            return None
        if following is None:
            self._forget(session)
        elif outcome.status in _GOES_ON:
            prompt = self._schedule.request(row.request).prompt
            pieces = Pieces.of(outcome.chunks).chunks
            reply = "".join([chunk.text for chunk in pieces if chunk.kind is ChunkKind.CONTENT])
            said = prompt if isinstance(prompt, str) else ""
            self._said[session] = (*self._said.get(session, ()), Turn(said, reply))
            return following
        else:
            why = outcome.status.value.replace("_", " ")
            self._broken[session] = f"{BROKEN_OFF}: its turn {row.turn + 1} had failed ({why})"
        return None

    def broken(self, row: Row) -> str | None:
        """Why this turn cannot be sent, in one sentence; None where it can. To be asked once for each turn."""
        if row.turn == 0 or row.session is None:
            return None
        why = self._broken.get(row.session)
        if why is not None and self.next_turn(row) is None:
            self._forget(row.session)
        return why

    def _forget(self, session: int) -> None:
        self._said.pop(session, None)
        self._broken.pop(session, None)


class GivingUp:
    """Requests under way that are to be given up, by time: absolute, counted from when each was sent."""

    def __init__(self) -> None:
        self._times: list[tuple[int, int]] = []

    def add(self, request: int, at_ns: int) -> None:
        """Give up a request at this time."""
        heapq.heappush(self._times, (at_ns, request))

    @property
    def next_ns(self) -> int | None:
        """When the next one is due; None when there is none."""
        return self._times[0][0] if self._times else None

    def take(self, now_ns: int) -> list[int]:
        """The requests whose time has come."""
        found = []
        while self._times and self._times[0][0] <= now_ns:
            found.append(heapq.heappop(self._times)[1])
        return found


def why_given_up(row: Row) -> str:
    """One sentence for the record."""
    return f"given up by the client {(row.cancel_ns or 0) / NS_PER_S:g} s after it was sent, as planned"
