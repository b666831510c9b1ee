"""The process in which Locust runs on a machine that sends a share of the load (see `harness.drivers.locust.master`).

`harness worker` starts it as `python -P -m harness.drivers.locust.worker HOST PORT PATIENCE_S` for each trial. It
prints one line of JSON: {"more": whether another trial follows} or {"failed": sentence, "code": exit code}. The end of
its standard input ends it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import asdict, replace
from typing import Any

from harness.drivers import canary
from harness.drivers.base import Control, Part
from harness.drivers.drive import drive
from harness.drivers.locust.records import Outgoing
from harness.drivers.locust.roster import Clock, least_round_trip
from harness.drivers.workers.part import PartSpec, rebuild
from harness.errors import HarnessError, TrialFailed
from harness.processes import background, event_stream
from harness.records import Record
from harness.schedule.requests import Schedule, Shard
from harness.telemetry.cgroup import raise_file_limit

PINGS = 20
MASTER_SILENT_S = 10.0
LOOK_EVERY_S = 0.25
GOODBYE_S = 0.3


async def follow(host: str, port: int, patience_s: float, sender: canary.Sender) -> bool:
    """Take part in one trial; whether another follows.

    Raises TrialFailed if there is no master, if it vanishes, or if this process cannot do its share.
    """
    from harness.drivers.locust.session import LocustSession, quieten
    from harness.drivers.locust.users import Seats

    quieten()
    seats = Seats()
    session = LocustSession(seats, "")
    session.follow(host, port, patience_s)
    share = Share(session, seats, asyncio.get_running_loop(), f"{host}:{port}", sender)
    try:
        return await share.carry_out()
    finally:
        await asyncio.sleep(GOODBYE_S)  # the last messages leave
        session.end()


class Share:
    """One worker's part of one trial."""

    def __init__(
        self, session: Any, seats: Any, loop: asyncio.AbstractEventLoop, address: str, sender: canary.Sender
    ) -> None:
        self._session = session
        self._seats = seats
        self._loop = loop
        self._address = address
        self._sender = sender
        self._heard: dict[str, asyncio.Future[Any]] = {}
        self._pongs: asyncio.Queue[tuple[int, int, int]] = asyncio.Queue()
        self._control = Control()
        for kind in ("part", "begin", "over", "dismissed"):
            self._heard[kind] = loop.create_future()
            session.listen(f"harness_{kind}", self._keeper(kind))
        session.listen("harness_pong", self._pong)
        for kind, do in (
            ("release", self._control.release),
            ("stop", self._control.stop),
            ("abort", self._control.abort),
        ):
            session.listen(f"harness_{kind}", lambda _, __, do=do: loop.call_soon_threadsafe(do))

    async def carry_out(self) -> bool:
        """From the first word to the last; whether another trial follows."""
        self._session.send("harness_hello", {"host": socket.gethostname()})
        told = await self._word("part")
        try:
            part, schedule = await self._prepared(told)
        except HarnessError as error:
            self._session.send("harness_refused", {"reason": str(error)})
            raise
        clock = await self._related()
        await self._drive(part, schedule, Shard(told["index"], told["of"]), clock)
        over = await self._word("over")
        return bool(over["more"])

    async def _prepared(self, told: dict[str, Any]) -> tuple[PartSpec, Schedule]:
        """The plan, made anew; in a thread, so that the master goes on hearing from us."""
        from harness.drivers.locust.loop import off_the_loop

        part = PartSpec(**told["part"])
        part.endpoint(part.own_headers(os.environ))
        return part, await off_the_loop(lambda: rebuild(part))

    async def _related(self) -> Clock:
        """How the master's clock stands to ours."""
        exchanges = []
        for _ in range(PINGS):
            self._session.send("harness_ping", {"at_ns": time.monotonic_ns()})
            exchanges.append(await self._while_master_lives(self._pongs.get()))
        return least_round_trip(exchanges)

    async def _drive(self, part: PartSpec, schedule: Schedule, shard: Shard, clock: Clock) -> None:
        """Send the share when told to begin; records leave as they are made, the report at the end."""
        from harness.drivers.locust.users import tell

        outgoing = Outgoing(lambda ipc: self._session.send("harness_records", {"ipc": ipc}))
        self._seats.reserve(range(shard.index, schedule.users, shard.of))
        self._session.environment.host = part.url
        began_utc_s = 0.0

        async def start() -> int:
            nonlocal began_utc_s
            machine = {"offset_ns": clock.offset_ns, "uncertainty_ns": clock.uncertainty_ns}
            self._session.send("harness_ready", machine)
            begin = await self._word("begin")
            began_utc_s = begin["t0_utc_s"]
            return int(begin["t0_ns"])

        def keep(record: Record) -> None:
            record.worker = shard.index
            outgoing.add(record)
            tell(self._session.environment, record, began_utc_s)

        driven = Part(shard, start, lambda: self._session.send("harness_counted"), self._seats.hand_over)
        endpoint = part.endpoint(part.own_headers(os.environ))
        settings = replace(part.drive_settings(), canary_port=self._sender.port)
        async with self._watched(outgoing):
            report = await drive(schedule, endpoint, settings, keep, self._control, driven)
        report.notes += [self._sender.missing] if self._sender.missing else []
        outgoing.flush()
        self._session.send("harness_report", {"report": asdict(report)})

    @contextlib.asynccontextmanager
    async def _watched(self, outgoing: Outgoing) -> AsyncIterator[None]:
        """Meanwhile see that records leave also when they are rare, and stop when the master is gone."""

        async def look() -> None:
            while True:
                await asyncio.sleep(LOOK_EVERY_S)
                outgoing.flush_if_due()
                if self._master_silent_s() > MASTER_SILENT_S:
                    self._control.abort()

        async with background(look()):
            yield

    async def _word(self, kind: str) -> Any:
        """The master's next word of a kind."""
        return await self._while_master_lives(self._heard[kind])

    async def _while_master_lives(self, awaited: Any) -> Any:
        """Wait for something from the master. Raises TrialFailed if it falls silent or sends us away."""
        waiting = asyncio.ensure_future(awaited)
        dismissed = self._heard["dismissed"]
        while not waiting.done():
            await asyncio.wait([waiting, dismissed], timeout=LOOK_EVERY_S, return_when=asyncio.FIRST_COMPLETED)
            if dismissed.done():
                raise TrialFailed(
                    f"the master at {self._address} sent this worker away: {dismissed.result()['reason']}"
                )
            if not waiting.done() and self._master_silent_s() > MASTER_SILENT_S:
                raise TrialFailed(
                    f"the master at {self._address} has not been heard of for {MASTER_SILENT_S:.0f} s: this worker ends"
                )
        return waiting.result()

    def _master_silent_s(self) -> float:
        heard_s = self._session.runner.last_heartbeat_timestamp
        return 0.0 if heard_s is None else time.time() - float(heard_s)

    def _keeper(self, kind: str) -> Any:
        """Keeps the first message of a kind for whoever waits for it."""
        heard = self._heard[kind]

        def keep(_: str, data: Any) -> None:
            self._loop.call_soon_threadsafe(lambda: None if heard.done() else heard.set_result(data))

        return keep

    def _pong(self, _: str, data: Any) -> None:
        now_ns = time.monotonic_ns()
        exchange = (data["at_ns"], data["master_ns"], now_ns)
        self._loop.call_soon_threadsafe(self._pongs.put_nowait, exchange)


def end_with_standard_input() -> None:
    """Whoever started us holds our standard input; when it ends, there is nobody to tell how this went."""
    import gevent
    from gevent.os import tp_read

    def wait() -> None:
        while tp_read(0, 1):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    gevent.spawn(wait)


def main() -> None:
    """Entry point."""
    host, port, patience_s = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    emit = event_stream()
    raise_file_limit()
    from harness.drivers.locust.loop import run_in_greenlet

    end_with_standard_input()
    try:
        with canary.sender(True) as sender:
            emit({"more": run_in_greenlet(follow(host, port, patience_s, sender))})
    except HarnessError as error:
        emit({"failed": str(error), "code": int(error.exit_code)})


if __name__ == "__main__":
    main()
