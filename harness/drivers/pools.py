"""The connections to all servers of an endpoint: requests go round, those of one conversation to the same server."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence

from harness.drivers.base import DriveReport
from harness.drivers.connection import Connection, Owner
from harness.drivers.place import Place
from harness.drivers.poller import Poller
from harness.drivers.pool import Pool
from harness.timeline import StampClock


class Pools:
    """A pool for each place; see `Pool` for what its methods do. A connection knows its place.

    turn: the request's place in the round, see `Schedule.turn_in_round`.
    """

    def __init__(
        self, poller: Poller, places: Sequence[Place], stamps: StampClock, owner: Owner, report: DriveReport
    ) -> None:
        self._places = tuple(places)
        self._pools = [Pool(poller, place, stamps, owner, report) for place in places]
        self._pool_of = dict(zip(self._places, self._pools, strict=True))

    async def warm(self, count: int, loop: asyncio.AbstractEventLoop) -> None:
        """Open `count` connections, and with several places some more: users meet at one of them by chance.

        Of `count` users spread at random, more than n + 3 sqrt(n) are hardly ever at one place, n being their mean.
        """
        mean = count / len(self._pools)
        each = count if len(self._pools) == 1 else min(count, math.ceil(mean + 3 * math.sqrt(mean)))
        for pool in self._pools:
            await pool.warm(each, loop)

    def place(self, turn: int) -> Place:
        """Where a request goes."""
        return self._places[turn % len(self._places)]

    def backend(self, turn: int) -> str | None:
        """The URL to which a request goes; None where there is but one."""
        return self.place(turn).address.url if len(self._places) > 1 else None

    def take(self, turn: int, *, fresh: bool = False) -> Connection:
        """A connection for a request."""
        return self._pools[turn % len(self._pools)].take(fresh=fresh)

    def give_back(self, connection: Connection, *, reusable: bool, good: bool) -> None:
        """A connection has done its work."""
        self._pool_of[connection.place].give_back(connection, reusable=reusable, good=good)

    def drop(self, connection: Connection) -> None:
        """Close a connection in the middle of a reply."""
        connection.close()

    def stale(self, connection: Connection) -> None:
        """A connection that was used again turned out to be closed."""
        self._pool_of[connection.place].stale(connection)

    def closes_after_replies(self, connection: Connection) -> bool:
        """Whether this connection's server does, as far as is known."""
        return self._pool_of[connection.place].closes_after_replies

    def connected(self, connection: Connection) -> None:
        """A connection is ready."""
        self._pool_of[connection.place].connected(connection)

    def lost(self, connection: Connection, reason: str) -> None:
        """A connection is gone."""
        self._pool_of[connection.place].lost(connection, reason)

    def close(self) -> None:
        """Close all idle connections."""
        for pool in self._pools:
            pool.close()
