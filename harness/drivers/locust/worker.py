"""Locust's process on a machine that sends a share of the load (see `harness.drivers.locust.master`).

`harness worker` starts it as `python -P -m harness.drivers.locust.worker HOST PORT PATIENCE_S [NAME...]` for each
trial. The names are those of the environment variables that the scenario may have. It prints one line of JSON: {"more":
whether another trial follows} or {"failed": sentence, "code": exit code}. It exits when its standard input ends.
"""

from __future__ import annotations

import asyncio
import functools
import os
import signal
import socket
import sys
import time
from collections.abc import Collection, Mapping
from dataclasses import asdict, replace
from typing import Any

from pydantic import TypeAdapter

from engines.secrets import masked_in
from harness.drivers import canary
from harness.drivers.base import Control
from harness.drivers.locust import options
from harness.drivers.locust.records import Outgoing
from harness.drivers.workers.group import ClockOffset, least_round_trip
from harness.drivers.workers.part import PartSpec, rebuild
from harness.drivers.workers.worker import Share
from harness.errors import HarnessError, TrialFailed
from harness.processes import background, event_stream
from harness.records import Record
from harness.scenario.reader import as_checked
from harness.schedule.cells import combinations
from harness.schedule.requests import Schedule, Shard
from harness.telemetry.cgroup import raise_file_limit

PINGS = 20
LOOK_EVERY_S = 0.25
GOODBYE_S = 0.3


async def follow(host: str, port: int, patience_s: float, allowed: Collection[str], sender: canary.Sender) -> bool:
    """Take part in one trial; return True if another follows. allowed: names of variables that the scenario may have.

    Raises TrialFailed if there is no master, if it vanishes, or if this process cannot send its share.
    """
    from harness.drivers.locust.session import LocustSession, quieten
    from harness.drivers.locust.users import Seats

    quieten()
    seats = Seats()
    session = LocustSession(seats, "")
    session.follow(host, port, patience_s)
    worker = LocustWorker(session, seats, f"{host}:{port}", allowed, sender)
    try:
        return await worker.carry_out()
    finally:
        await asyncio.sleep(GOODBYE_S)  # for the last messages
        session.end()


class LocustWorker:
    """Worker of one trial. Messages arrive in Locust's greenlets."""

    def __init__(self, session: Any, seats: Any, address: str, allowed: Collection[str], sender: canary.Sender) -> None:
        self._session, self._seats, self._address, self._sender = session, seats, address, sender
        self._allowed = allowed
        self._env = {name: os.environ[name] for name in allowed if name in os.environ}
        self._control = Control()
        self._loop = asyncio.get_running_loop()
        self._words: dict[str, asyncio.Queue[dict[str, Any]]] = {}
        for word in ("part", "pong", "begin", "over", "dismissed"):
            self._words[word] = asyncio.Queue()
            session.listen(f"harness_{word}", functools.partial(self._keep, self._words[word]))
        for order in ("release", "stop", "abort"):
            session.listen(f"harness_{order}", functools.partial(self._obey, order))

    async def carry_out(self) -> bool:
        """Take part in the trial; return True if another follows."""
        from harness.drivers.locust.loop import off_the_loop

        self._post("hello", {"host": socket.gethostname()})
        message = await self._word("part")
        part = TypeAdapter(PartSpec).validate_python(message["part"])
        try:
            check_allowed(part, self._allowed)
            part.own_headers(self._env)  # raises if a variable is missing
            schedule = await off_the_loop(
                lambda: rebuild(part, self._env)
            )  # so that the master keeps receiving heartbeats
        except HarnessError as error:
            self._post("refused", {"reason": str(error)})
            raise
        clock = await self._clock_offset()
        await self._send(part, schedule, Shard(message["index"], message["of"]), clock)
        return bool((await self._word("over"))["more"])

    async def _clock_offset(self) -> ClockOffset:
        """Compare the master's clock with this machine's."""
        exchanges = []
        for _ in range(PINGS):
            self._post("ping", {"at_ns": time.monotonic_ns()})
            pong = await self._word("pong")
            exchanges.append((pong["at_ns"], pong["master_ns"], pong["arrived_ns"]))
        return least_round_trip(exchanges)

    async def _send(self, part: PartSpec, schedule: Schedule, shard: Shard, clock: ClockOffset) -> None:
        """Send the share after `begin`, records in batches, the report at the end."""
        from harness.drivers.locust.users import fire_request_event

        outgoing = Outgoing(lambda ipc: self._post("records", {"ipc": ipc}))
        self._seats.reserve(range(shard.index, schedule.users, shard.of))
        self._session.environment.host = part.target.url
        began_utc_s = 0.0

        async def begun() -> Mapping[str, Any]:
            nonlocal began_utc_s
            begin = await self._word("begin")
            began_utc_s = begin["t0_utc_s"]
            return begin

        def keep(record: Record) -> None:
            outgoing.add(record)
            fire_request_event(self._session.environment, record, began_utc_s)

        share = Share(shard, self._control, self._post, begun, clock)
        endpoint = part.endpoint(part.own_headers(self._env))
        settings = replace(part.settings, canary_port=self._sender.port)
        async with background(self._watch(outgoing)):
            report = await share.send(schedule, endpoint, settings, keep, self._seats.hand_over)
        report.notes += [self._sender.missing] if self._sender.missing else []
        outgoing.flush()
        self._post("report", {"report": asdict(report)})

    async def _watch(self, outgoing: Outgoing) -> None:
        """Send rare records in time, and abort if the master is gone."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            outgoing.flush_if_due()
            if self._master_silent_s() > options.MASTER_SILENT_S:
                self._control.abort()

    def _post(self, word: str, data: Mapping[str, Any]) -> None:
        self._session.send(f"harness_{word}", masked_in(dict(data)))

    async def _word(self, word: str) -> dict[str, Any]:
        """Wait for the master's next message of a kind.

        Raises TrialFailed if the master is silent or dismisses this worker.
        """
        while True:
            try:
                return await asyncio.wait_for(self._words[word].get(), LOOK_EVERY_S)
            except TimeoutError:
                master, dismissed = f"the master at {self._address}", self._words["dismissed"]
            if not dismissed.empty():
                raise TrialFailed(f"{master} dismissed this worker: {dismissed.get_nowait()['reason']}")
            if self._session.runner.client.garbled:
                raise TrialFailed(
                    f"{master} sent a message that cannot be read; install the same version of harness there"
                )
            if self._master_silent_s() > options.MASTER_SILENT_S:
                raise TrialFailed(f"{master} has been silent for {options.MASTER_SILENT_S:.0f} s; this worker exits")

    def _master_silent_s(self) -> float:
        heard_s = self._session.runner.last_heartbeat_timestamp
        return 0.0 if heard_s is None else time.time() - float(heard_s)

    def _keep(self, words: asyncio.Queue[dict[str, Any]], _: str, data: Any) -> None:
        """Queue a message with its time of arrival."""
        self._loop.call_soon_threadsafe(words.put_nowait, {**data, "arrived_ns": time.monotonic_ns()})

    def _obey(self, order: str, *_: Any) -> None:
        self._loop.call_soon_threadsafe(self._control.obey, order)


def check_allowed(part: PartSpec, allowed: Collection[str]) -> None:
    """Raise TrialFailed if the part's engine needs environment variables that this worker does not give."""
    every = combinations(as_checked(part.scenario))
    needed = every[part.cell].block.variables() if 0 <= part.cell < len(every) else ()
    asked = dict.fromkeys(name for name in needed if name not in allowed)
    if asked:
        names, options = ", ".join(asked), " ".join(f"--allow-env {name}" for name in asked)
        raise TrialFailed(f"the scenario asks for {names} of this worker's environment; to allow it, add {options}")


def end_with_standard_input() -> None:
    """End this process when its standard input ends, because its parent is gone."""
    import gevent
    from gevent.os import tp_read

    def wait() -> None:
        while tp_read(0, 1):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    gevent.spawn(wait)


def main() -> None:
    """Run one trial for `harness worker`."""
    host, port, patience_s, allowed = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), sys.argv[4:]
    emit = event_stream()
    raise_file_limit()
    from harness.drivers.locust.loop import run_in_greenlet

    end_with_standard_input()
    try:
        with canary.sender(True) as sender:
            emit({"more": run_in_greenlet(follow(host, port, patience_s, allowed, sender))})
    except HarnessError as error:
        emit({"failed": str(error), "code": int(error.exit_code)})


if __name__ == "__main__":
    main()
