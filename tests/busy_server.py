"""A server of completions in a thread of the test that refuses some requests, and notes what came when."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from harness.drivers import stub


@dataclass
class BusyServer:
    """Refuses every so-many-th request with 503, and answers the others as the stub server does.

    asked_ns: when each request was read.   refused_ns: when some were refused.   most: the most replies at once.
    """

    refuse_every: int
    asked_ns: list[int] = field(default_factory=list)
    refused_ns: list[int] = field(default_factory=list)
    at_once: int = 0
    most: int = 0
    port: int = 0

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    def answer(self, request: stub.HttpRequest, connection: stub.Connection) -> stub.Reply:
        """Answer, or refuse."""
        if request.path != stub.COMPLETIONS_PATH:
            return stub.answer(request, connection)
        self.asked_ns.append(time.monotonic_ns())
        if len(self.asked_ns) % self.refuse_every == 0:
            self.refused_ns.append(time.monotonic_ns())
            return stub.page(connection, 503, stub.error("too busy"))
        return self._counted(stub.answer(request, connection))

    def _counted(self, reply: stub.Reply) -> Iterator[int]:
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        try:
            yield from reply
        finally:
            self.at_once -= 1


@contextmanager
def busy_server(refuse_every: int) -> Iterator[BusyServer]:
    """A server for the length of the block."""
    server, ready, over = BusyServer(refuse_every), threading.Event(), threading.Event()

    async def serve() -> None:
        listening = await stub.listen(server.answer)
        server.port = listening.sockets[0].getsockname()[1]
        ready.set()
        await asyncio.get_running_loop().run_in_executor(None, over.wait)
        listening.close()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    try:
        assert ready.wait(30)
        yield server
    finally:
        over.set()
        thread.join(30)
