"""Chains of requests, in which each request waits for the one before it.

The first row of a chain falls due at a scheduled time, each later row after the end of its predecessor. Chains are
single rows (open loop), the rows of a user (closed loop) or of a conversation (partly open loop).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.scenario.files.prompts import FilePrompts
from harness.schedule.prompts import draw_lengths
from harness.seeding import generator

_TURNS = 16
_SESSIONS_AT_ONCE = 4096
Int64 = NDArray[np.int64]
Int32 = NDArray[np.int32]


class Place(NamedTuple):
    """Place of a row in the chains.

    Attributes:
        session: Number of its conversation, from 0; None without conversations.
        turn: Turn in the conversation, from 0.
        user: User of a closed loop.
        after: Row that it waits for; None for the first row of a chain.
    """

    session: int | None
    turn: int
    user: int | None
    after: int | None
    chain: int


class Chains:
    """Chains of a schedule: in an open loop, each row is a chain of its own.

    Attributes:
        count: Number of rows; None without end.
        starts: First rows of the chains, in rising order.
        turns: Distribution of the turns of a conversation; None without conversations, and for recorded ones.
    """

    def __init__(self, count: int | None, starts: Sequence[int] | Int64 | None = None, turns: Any = None) -> None:
        self.count, self.turns = count, turns
        self.starts: Sequence[int] | Int64 = range(count or 0) if starts is None else starts

    def place(self, i: int) -> Place:
        return Place(None, 0, None, None, i)

    def follower(self, i: int) -> int | None:
        """Return the row that waits for row i."""
        return None

    def is_later_turn(self, i: int) -> bool:
        """Return True if row i continues a conversation, so that its content depends on replies."""
        return False

    def turn_in_round(self, i: int) -> int:
        """Return a number that selects the server (modulo their count); it rises per row or per conversation."""
        return i


class TurnCounts:
    """Numbers of turns of the conversations, drawn from a distribution block by block."""

    def __init__(self, turns: Any, seed: int) -> None:
        self.turns, self._seed = turns, seed
        self._blocks: dict[int, Int32] = {}

    def of(self, session: int) -> int:
        """Return the number of turns of a conversation."""
        return int(self._block(session // _SESSIONS_AT_ONCE)[session % _SESSIONS_AT_ONCE])

    def first(self, count: int) -> Int32:
        """Return the numbers of turns of the first `count` conversations."""
        blocks = [self._block(block) for block in range(-(-count // _SESSIONS_AT_ONCE))]
        return np.concatenate(blocks)[:count] if blocks else np.empty(0, dtype=np.int32)

    def _block(self, block: int) -> Int32:
        if block not in self._blocks:
            self._blocks[block] = draw_lengths(self.turns, generator(self._seed, _TURNS, block), _SESSIONS_AT_ONCE)
        return self._blocks[block]


class FileTurns:
    """Numbers of turns of conversations from a file: as many as its line has, at most as many as are drawn.

    Attributes:
        turns: Distribution of the turns, or of the most turns if `drawn` is given.
    """

    def __init__(self, prompts: FilePrompts, turns: Any, drawn: TurnCounts | None) -> None:
        self.turns, self._prompts, self._drawn = turns, prompts, drawn

    def of(self, session: int) -> int:
        """Return the number of turns of a conversation."""
        turns = self._prompts.turns(session)
        return turns if self._drawn is None else min(turns, self._drawn.of(session))

    def first(self, count: int) -> Int32:
        """Return the numbers of turns of the first `count` conversations."""
        return np.fromiter(map(self.of, range(count)), dtype=np.int32, count=count)


class RecordedTurns:
    """Numbers of turns of the sessions of a trace, which its file determines."""

    turns = None

    def __init__(self, counts: Int32) -> None:
        self._counts = counts

    def first(self, count: int) -> Int32:
        """Return the numbers of turns of the first `count` sessions."""
        return self._counts[:count]


class Users(Chains):
    """Rows of a closed loop: row i belongs to user i % users and follows row i - users.

    With `turns`, a user's rows form one conversation after the other. Conversation c of user u has the number
    c * users + u.
    """

    def __init__(self, users: int, count: int | None, turns: TurnCounts | FileTurns | None = None) -> None:
        first = range(users if count is None else min(users, count))
        super().__init__(count, first, None if turns is None else turns.turns)
        self._users, self._turns = users, turns
        self._begun: dict[int, list[int]] = {}

    def place(self, i: int) -> Place:
        user, after = i % self._users, None if i < self._users else i - self._users
        if self._turns is None:
            return Place(None, 0, user, after, user)
        number, turn = self._conversation(user, i // self._users)
        return Place(number * self._users + user, turn, user, after, user)

    def follower(self, i: int) -> int | None:
        following = i + self._users
        return None if self.count is not None and following >= self.count else following

    def is_later_turn(self, i: int) -> bool:
        return self._turns is not None and self._conversation(i % self._users, i // self._users)[1] > 0

    def turn_in_round(self, i: int) -> int:
        user, row = i % self._users, i // self._users
        return user + (row if self._turns is None else self._conversation(user, row)[0])

    def _conversation(self, user: int, row: int) -> tuple[int, int]:
        """Return the number of the user's conversation that contains a row, and the turn in it."""
        assert self._turns is not None
        begun = self._begun.setdefault(user, [0])  # first rows of the user's conversations
        while begun[-1] <= row:
            begun.append(begun[-1] + self._turns.of((len(begun) - 1) * self._users + user))
        number = bisect_right(begun, row) - 1
        return number, row - begun[number]


class Sessions(Chains):
    """Rows of conversations that begin at scheduled times, numbered one conversation after the other."""

    def __init__(self, sessions: int, turns: TurnCounts | FileTurns | RecordedTurns) -> None:
        counts = turns.first(sessions)
        starts = np.cumsum(counts, dtype=np.int64) - counts
        super().__init__(int(counts.sum()), starts, turns.turns)
        self._session = np.repeat(np.arange(sessions, dtype=np.int32), counts)
        self._turn = (np.arange(counts.sum()) - np.repeat(starts, counts)).astype(np.int32)

    def place(self, i: int) -> Place:
        session, turn = int(self._session[i]), int(self._turn[i])
        return Place(session, turn, None, i - 1 if turn else None, session)

    def follower(self, i: int) -> int | None:
        following = i + 1
        return following if following < len(self._turn) and self._turn[following] else None

    def is_later_turn(self, i: int) -> bool:
        return bool(self._turn[i])

    def turn_in_round(self, i: int) -> int:
        return int(self._session[i])
