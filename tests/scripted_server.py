"""A scripted HTTP server on loopback, in the test's own loop, and small plans to send to it.

Not the stub server (`harness.drivers.stub`), because a script is a coroutine of the test: it awaits what the test does,
resets and half-closes connections, and stops writing when the client does not read.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from engines.base import Endpoint, InProcessEngine, Request
from harness.drivers import stub
from harness.drivers.base import ALONE, Control, DriveReport, DriveSettings, Part
from harness.drivers.drive import drive
from harness.drivers.stub import LAST_CHUNK, STREAM_HEAD, chunk, event
from harness.records import Loop, Phase, Record
from harness.schedule.requests import Row
from harness.schedule.timing import PHASES, Window

MS = 1_000_000
SECOND = 1_000_000_000


@dataclass
class Plan:
    """A schedule of a few rows; closed with `users`, else open with `due_ns`: what the drivers use of a Schedule."""

    count: int | None
    users: int = 0
    due_ns: Any = None
    phases: Any = None
    window: Window = field(default_factory=lambda: Window(0, None))
    continues: bool = False
    measured: int | None = None
    think_ns: int = 0
    prompt: Any = "hello"
    stream: bool = True
    plan_hash: str = ""
    count_tokens: Any = None
    grows: bool = False

    def __post_init__(self) -> None:
        self.loop = Loop.CLOSED if self.users else Loop.OPEN
        known = self.users if self.count is None else min(self.users, self.count)
        self.starts = range(known if self.users else self.count or 0)

    def follower(self, i: int) -> int | None:
        """The row that waits for row i."""
        following = i + self.users
        return None if not self.users or (self.count is not None and following >= self.count) else following

    def wait_ns(self, i: int) -> int:
        """The think time."""
        return self.think_ns

    def is_later_turn(self, i: int) -> bool:
        """There are no conversations."""
        return False

    def turn_in_round(self, i: int) -> int:
        """One further with each row."""
        return i

    def loop_of(self, row: Row) -> Loop:
        """That of the plan."""
        return self.loop

    def row(self, i: int) -> Row:
        """The planned row i."""
        if self.users:
            first = i < self.users
            after = None if first else i - self.users
            think_ns = 0 if first else self.think_ns
            return Row(i, "default", None, 0, i % self.users, None, after, think_ns, 0 if first else None, 1, 4)
        phase = Phase.MEASURE if self.phases is None else PHASES[self.phases[i]]
        return Row(i, "default", None, 0, None, phase, None, 0, int(self.due_ns[i]), 1, 4)

    def request(self, i: int, history: Any = ()) -> Request:
        """What row i asks."""
        return Request(self.prompt, 4, stream=self.stream)


def open_plan(due_ms: Sequence[float], phases: Sequence[int] | None = None, **rest: Any) -> Plan:
    """Requests due at these times; phases index into warm-up, measure, cooldown."""
    due_ns = np.asarray([round(ms * MS) for ms in due_ms], dtype=np.int64)
    return Plan(
        len(due_ms), due_ns=due_ns, phases=None if phases is None else np.asarray(phases, dtype=np.int8), **rest
    )


def piece(text: str = " word", finish: str | None = None) -> bytes:
    """One event of a completion."""
    return event({"choices": [{"index": 0, "text": text, "finish_reason": finish}]})


def ending(tokens: int = 2) -> bytes:
    """The events that end a good reply."""
    return stub.ending(tokens, prompt_tokens=1)


def reply(status: str, body: bytes, *headers: str) -> bytes:
    """A whole response with a length."""
    lines = [f"HTTP/1.1 {status}", *headers, f"content-length: {len(body)}", "", ""]
    return "\r\n".join(lines).encode() + body


@dataclass
class Call:
    """One request as the server got it."""

    number: int
    connection: int
    head: bytes
    body: bytes
    writer: asyncio.StreamWriter
    reader: asyncio.StreamReader
    log_ns: list[int]

    def sent_by(self, at_ns: int) -> int:
        """How many times something had been sent by then."""
        return sum(sent_ns <= at_ns for sent_ns in self.log_ns)

    async def send(self, data: bytes, after_ms: float = 0) -> None:
        """Write bytes, after a while; notes the time."""
        if after_ms:
            await asyncio.sleep(after_ms / 1e3)
        self.log_ns.append(time.monotonic_ns())
        self.writer.write(data)
        await self.writer.drain()

    async def good(self) -> None:
        """A good reply of two tokens."""
        await self.send(STREAM_HEAD + chunk(piece(" a")))
        await self.send(chunk(piece(" b")) + chunk(ending()) + LAST_CHUNK)

    async def talk(self) -> None:
        """A reply of one token every 10 ms until the client leaves; each is one `send`, the first with the head."""
        await self.send(STREAM_HEAD + chunk(piece()))
        with contextlib.suppress(ConnectionError):
            while not self.writer.transport.is_closing():
                await self.send(chunk(piece()), after_ms=10)

    def hang_up(self) -> None:
        """Reset the connection."""
        self.writer.transport.abort()


class ScriptedServer:
    """Answers every request with `script(call)`."""

    def __init__(self, script: Callable[[Call], Awaitable[None]]) -> None:
        self._script = script
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self.calls: list[Call] = []
        self.connections = 0
        self.port = 0

    @property
    def endpoint(self) -> Endpoint:
        """Where it listens."""
        return Endpoint(f"http://127.0.0.1:{self.port}", "openai-completions", "stub")

    async def start(
        self, tls: ssl.SSLContext | None = None, *, host: str = "127.0.0.1", port: int = 0, path: str | None = None
    ) -> None:
        """Listen on a port, a free one by default, or on a Unix socket."""
        if path is not None:
            self._server = await asyncio.start_unix_server(self._serve, path)
            return
        self._server = await asyncio.start_server(self._serve, host, port, ssl=tls)
        self.port = self._server.sockets[0].getsockname()[1]

    def kill(self) -> None:
        """Vanish: refuse new connections, reset the old."""
        assert self._server is not None
        self._server.close()
        for writer in list(self._writers):
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = self.connections
        self.connections += 1
        self._writers.add(writer)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                lines = head.lower().split(b"\r\n")
                length = next((int(line[15:]) for line in lines if line.startswith(b"content-length:")), 0)
                body = await reader.readexactly(length)
                self.calls.append(Call(len(self.calls), connection, head, body, writer, reader, []))
                await self._script(self.calls[-1])
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            self._writers.discard(writer)  # the client or the test has had enough
        finally:
            writer.close()


@asynccontextmanager
async def serving(script: Callable[[Call], Awaitable[None]], **where: Any) -> AsyncIterator[ScriptedServer]:
    """A server for the length of the block, see `ScriptedServer.start`; nothing of it is left afterwards."""
    server = ScriptedServer(script)
    await server.start(**where)
    try:
        yield server
    finally:
        server.kill()
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        with contextlib.suppress(Exception):
            await asyncio.sleep(0)


async def measure(
    target: Endpoint | InProcessEngine,
    plan: Plan,
    *,
    timeout_ms: float = 60_000,
    control: Control | None = None,
    part: Part = ALONE,
    **settings: Any,
) -> tuple[list[Record], DriveReport]:
    """The records of a plan, in the order of their numbers, and the client's report. timeout_ms: against a hang."""
    records: list[Record] = []
    chosen = DriveSettings(round(timeout_ms * MS), keep_text=True, **settings)
    report = await drive(plan, target, chosen, records.append, control, part)  # type: ignore[arg-type]
    return sorted(records, key=lambda record: record.request), report


def run(
    script: Callable[[Call], Awaitable[None]], plan: Plan, **rest: Any
) -> tuple[list[Record], DriveReport, ScriptedServer]:
    """Drive a plan against a scripted server."""

    async def main() -> tuple[list[Record], DriveReport, ScriptedServer]:
        async with serving(script) as server:
            records, report = await measure(server.endpoint, plan, **rest)
            return records, report, server

    return asyncio.run(main())
