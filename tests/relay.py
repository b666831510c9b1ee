"""A way to a server on this machine that lets some requests through and holds the later ones until a file exists.

So whoever watches a run decides how far it goes, however fast or busy the machine is.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import TracebackType

LOOK_EVERY_S = 0.01


def reached(until: Path) -> Path:
    """The file that is there once a request waits for `until`."""
    return until.with_name(f"{until.name}.reached")


class Relay:
    """Passes bytes on, both ways, from a free port to another; in a thread of its own for the length of the block.

    requests: so many whose head begins with `head` are passed on, each at least pace_s after it came, so that what
    they bring has time to be stored; the later ones wait, where there is an `until`. One that comes again word for
    word, because the server had closed its connection, counts once.   url: where it listens.
    passed: pieces of replies, each with the moment on the monotonic clock at which it was passed on.
    """

    def __init__(
        self,
        port: int,
        requests: int = 0,
        until: Path | None = None,
        *,
        head: str = "POST /v1/completions ",
        pace_s: float = 0.0,
    ) -> None:
        self._port, self._requests, self._until = port, requests, until
        self._head, self._pace_s = head.encode(), pace_s
        self._asked: list[bytes] = []
        self._ended = asyncio.Event()
        self._listening = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.url = ""
        self.passed: list[tuple[int, bytes]] = []

    def start(self) -> None:
        """Listen."""
        self._thread.start()
        self._listening.wait()

    def close(self) -> None:
        """Cut off what is under way."""
        self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join()

    def __enter__(self) -> Relay:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:  # cancels what still waits
            runner.run(self._serve())

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        self._listening.set()
        await self._ended.wait()
        server.close()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            from_server, to_server = await asyncio.open_connection("127.0.0.1", self._port)
            asking = self._pass(reader, to_server, self._turn)
            await asyncio.gather(asking, self._pass(from_server, writer, self._note))
        except (ConnectionError, asyncio.CancelledError):
            writer.transport.abort()  # one of the two is gone, or the relay is to end

    async def _pass(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, turn: Callable[[bytes], Awaitable[None]]
    ) -> None:
        try:
            while data := await reader.read(1 << 16):
                await turn(data)
                writer.write(data)
                await writer.drain()
        finally:
            writer.close()

    async def _note(self, data: bytes) -> None:
        """A piece of a reply is passed on as it comes."""
        self.passed.append((time.monotonic_ns(), data))

    async def _turn(self, data: bytes) -> None:
        """Wait until it is a request's turn, whose beginning this may be."""
        if not data.startswith(self._head):
            return
        if data not in self._asked:
            self._asked.append(data)
        if self._until is None or self._asked.index(data) < self._requests:
            await asyncio.sleep(self._pace_s)
            return
        reached(self._until).touch()
        while not self._until.exists():
            await asyncio.sleep(LOOK_EVERY_S)
