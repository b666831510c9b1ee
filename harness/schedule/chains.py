"""Which requests of a plan wait for which: single ones, users' endless rows, conversations of several turns.

The rows of a plan form chains. The first row of a chain falls due when the plan says; each later one after the row
before it has ended. An open loop has chains of one row, a closed loop one chain for each user, a partly open loop one
for each conversation.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from harness.schedule.prompts import draw_lengths
from harness.seeding import generator

_TURNS = 16
_SESSIONS_AT_ONCE = 4096
Int64 = NDArray[np.int64]
Int32 = NDArray[np.int32]


class Place(NamedTuple):
    """Where a row stands.

    session, turn: its conversation and the turn in it, from 0.   user: of a closed loop.
    after: the row it waits for; None for the first of a chain.   chain: the number of its chain.
    """

    session: int | None
    turn: int
    user: int | None
    after: int | None
    chain: int


class Chains(Protocol):
    """The chains of a plan.

    count: rows, None without end.   starts: first rows of the chains, rising.   turns: distribution of the number of
    turns of conversations; None where there are none.
    """

    count: int | None
    starts: Sequence[int] | Int64
    turns: Any

    def place(self, i: int) -> Place:
        """Where row i stands."""
        ...

    def follower(self, i: int) -> int | None:
        """The row that waits for row i; None where none does."""
        ...

    def is_later_turn(self, i: int) -> bool:
        """Whether row i goes on with a conversation, so that what it says depends on replies."""
        ...

    def turn_in_round(self, i: int) -> int:
        """Whose turn it is among several servers: one further with each row, or with each conversation."""
        ...


class Singles:
    """Rows that wait for nobody; see `Chains`."""

    def __init__(self, count: int) -> None:
        self.count: int | None = count
        self.starts: Sequence[int] | Int64 = range(count)
        self.turns = None

    def place(self, i: int) -> Place:
        """Every row is a chain."""
        return Place(None, 0, None, None, i)

    def follower(self, i: int) -> int | None:
        """None."""
        return None

    def is_later_turn(self, i: int) -> bool:
        """No."""
        return False

    def turn_in_round(self, i: int) -> int:
        """One further with each row."""
        return i


class TurnCounts:
    """How many turns each conversation of a plan has: drawn from a distribution, block by block."""

    def __init__(self, turns: Any, seed: int) -> None:
        self.turns = turns
        self._seed = seed
        self._blocks: dict[int, Int32] = {}

    def of(self, session: int) -> int:
        """Turns of one conversation."""
        return int(self._block(session // _SESSIONS_AT_ONCE)[session % _SESSIONS_AT_ONCE])

    def first(self, count: int) -> Int32:
        """Turns of the first `count` conversations."""
        blocks = [self._block(block) for block in range(-(-count // _SESSIONS_AT_ONCE))]
        return np.concatenate(blocks)[:count] if blocks else np.empty(0, dtype=np.int32)

    def _block(self, block: int) -> Int32:
        if block not in self._blocks:
            self._blocks[block] = draw_lengths(self.turns, generator(self._seed, _TURNS, block), _SESSIONS_AT_ONCE)
        return self._blocks[block]


class Users:
    """Rows of users who take turns with themselves: row i is user i % users', and follows row i - users.

    turns: their rows form conversations of so many turns, one after the other; the conversation c of user u has number
    c * users + u. See `Chains`.
    """

    def __init__(self, users: int, count: int | None, turns: TurnCounts | None = None) -> None:
        self.count = count
        self.starts: Sequence[int] | Int64 = range(users if count is None else min(users, count))
        self.turns = None if turns is None else turns.turns
        self._users = users
        self._turns = turns
        self._begun: dict[int, list[int]] = {}

    def place(self, i: int) -> Place:
        """The user's chain; in conversations also the turn."""
        user, after = i % self._users, None if i < self._users else i - self._users
        if self._turns is None:
            return Place(None, 0, user, after, user)
        number, turn = self._conversation(user, i // self._users)
        return Place(number * self._users + user, turn, user, after, user)

    def follower(self, i: int) -> int | None:
        """The user's next row."""
        following = i + self._users
        return None if self.count is not None and following >= self.count else following

    def is_later_turn(self, i: int) -> bool:
        """Whether it is not the first of its conversation."""
        return self._turns is not None and self._conversation(i % self._users, i // self._users)[1] > 0

    def turn_in_round(self, i: int) -> int:
        """Each user goes round; one further with each of his rows, or conversations."""
        user, row = i % self._users, i // self._users
        return user + (row if self._turns is None else self._conversation(user, row)[0])

    def _conversation(self, user: int, row: int) -> tuple[int, int]:
        """The number of a user's conversation that his row belongs to, and the turn."""
        assert self._turns is not None
        begun = self._begun.setdefault(user, [0])  # rows at which his conversations begin
        while begun[-1] <= row:
            begun.append(begun[-1] + self._turns.of((len(begun) - 1) * self._users + user))
        number = bisect_right(begun, row) - 1
        return number, row - begun[number]


class Sessions:
    """Conversations that begin when the plan says; their rows are numbered one conversation after the other.

    turns: of each of `sessions` conversations. See `Chains`.
    """

    def __init__(self, sessions: int, turns: TurnCounts) -> None:
        counts = turns.first(sessions)
        ends = np.cumsum(counts, dtype=np.int64)
        self.count: int | None = int(ends[-1]) if sessions else 0
        self.starts: Sequence[int] | Int64 = ends - counts
        self.turns = turns.turns
        self._session = np.repeat(np.arange(sessions, dtype=np.int32), counts)
        self._turn = (np.arange(self.count, dtype=np.int64) - np.repeat(ends - counts, counts)).astype(np.int32)

    def place(self, i: int) -> Place:
        """The conversation's chain."""
        session, turn = int(self._session[i]), int(self._turn[i])
        return Place(session, turn, None, i - 1 if turn else None, session)

    def follower(self, i: int) -> int | None:
        """The next turn."""
        following = i + 1
        return following if following < len(self._turn) and self._turn[following] else None

    def is_later_turn(self, i: int) -> bool:
        """Whether it is not the first of its conversation."""
        return bool(self._turn[i])

    def turn_in_round(self, i: int) -> int:
        """One further with each conversation."""
        return int(self._session[i])
