"""A trial under Locust in one process: its local runner's users, the measuring client, one file of records."""

from __future__ import annotations

import asyncio
import time

from engines.base import Endpoint
from harness.drivers.base import DriveReport, Part
from harness.drivers.drive import drive
from harness.drivers.locust.order import Work
from harness.drivers.locust.session import LocustSession, quieten
from harness.drivers.locust.users import Seats, tell
from harness.records import Record
from harness.store.run import flush_or_end, record_writer

SPAWN_PATIENCE_S = 10.0
LEAD_NS = 50_000_000


async def drive_alone(work: Work) -> DriveReport:
    """Send the whole plan from this process."""
    quieten()
    users = locust_users(work)
    seats = Seats(range(work.schedule.users))
    endpoint = work.part.endpoint(work.order.headers)
    session = LocustSession(seats, str(endpoint.url))
    session.run_here()
    try:
        if work.order.page:
            work.emit({"event": "notice", "text": f"Locust's page is at {session.show_page()}"})
        loop = asyncio.get_running_loop()
        session.on_stop(lambda: loop.call_soon_threadsafe(work.control.stop))
        session.start(users)
        await spawned(session, users)
        return await send(work, endpoint, session, seats)
    finally:
        session.end()


async def send(work: Work, endpoint: Endpoint, session: LocustSession, seats: Seats) -> DriveReport:
    """Drive the plan; Locust hears of every request."""
    began_utc_s = 0.0

    async def start() -> int:
        nonlocal began_utc_s
        work.begun = True
        t0_ns = time.monotonic_ns() + LEAD_NS
        began_utc_s = time.time() + LEAD_NS / 1e9
        return t0_ns

    with record_writer(work.folder) as writer:
        work.flush = lambda: flush_or_end(writer, work.control.abort)

        def keep(record: Record) -> None:
            writer.add(record)
            work.progress.add(record)
            tell(session.environment, record, began_utc_s)

        part = Part(start=start, hand_over=seats.hand_over)
        try:
            return await drive(work.schedule, endpoint, work.part.drive_settings(), keep, work.control, part)
        finally:
            work.flush = lambda: None


def locust_users(work: Work) -> int:
    """One Locust user for each of the plan's; one that stands for the dispatcher of an open loop."""
    return work.schedule.users or 1


async def spawned(session: LocustSession, users: int) -> None:
    """Wait until the users are there; those that are not in time are not waited for, the plan goes on without them."""
    until_s = time.monotonic() + SPAWN_PATIENCE_S
    while session.runner.user_count < users and time.monotonic() < until_s:
        await asyncio.sleep(0.01)
