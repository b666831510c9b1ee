"""Hand-over of items from a thread that generates to the event loop that reads the reply."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Outbox(Generic[Item]):
    """Ordered items from any thread to one reader in the event loop.

    Attributes:
        closed: True once the reader has stopped.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._items: deque[Item | Exception] = deque()
        self._waiting: asyncio.Future[None] | None = None
        self._called = False
        self.closed = False

    def put(self, item: Item | Exception) -> None:
        """Deliver an item, from any thread."""
        self._items.append(item)
        if self._called:  # the loop is late, and will find this item with the earlier ones
            return
        self._called = True
        try:
            self._loop.call_soon_threadsafe(self._wake)
        except RuntimeError:  # the loop was closed during the request
            self.closed = True

    async def take(self) -> Item:
        """Wait for the next item and return it. An exception is raised."""
        while not self._items:  # a late call to wake may find its item taken
            self._waiting = self._loop.create_future()
            await self._waiting
        item = self._items.popleft()
        if isinstance(item, Exception):
            raise item
        return item

    def _wake(self) -> None:
        self._called = False
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)
