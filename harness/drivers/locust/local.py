"""Trial under Locust in one process: its local runner's users, the load generator, one file of records."""

from __future__ import annotations

import asyncio
import time

from harness.drivers.base import DriveReport, Part
from harness.drivers.drive import drive
from harness.drivers.locust.options import Options
from harness.drivers.locust.session import LocustSession, quieten
from harness.drivers.locust.users import Seats, fire_request_event
from harness.drivers.workers.worker import Sender
from harness.records import Record

LEAD_NS = 50_000_000


async def drive_alone(sender: Sender) -> DriveReport:
    """Send the whole plan from this process and report every request to Locust."""
    quieten()
    schedule = sender.schedule
    seats = Seats(range(schedule.users))
    endpoint = sender.order.part.endpoint(sender.order.headers)
    session = LocustSession(seats, endpoint.url)
    session.run_here()
    began_utc_s = 0.0

    async def start() -> int:
        nonlocal began_utc_s
        began_utc_s = time.time() + LEAD_NS / 1e9
        return time.monotonic_ns() + LEAD_NS

    def keep(record: Record) -> None:
        sender.keep(record)
        fire_request_event(session.environment, record, began_utc_s)

    try:
        if Options(**sender.order.locust).page:
            sender.post("notice", {"text": f"Locust's page is at {session.show_page()}"})
        loop = asyncio.get_running_loop()
        session.on_stop(lambda: loop.call_soon_threadsafe(sender.control.stop))
        await session.spawn(schedule.users or 1)  # an open loop has one user, for its dispatcher
        part = Part(start=start, hand_over=seats.hand_over)
        return await drive(schedule, endpoint, sender.order.part.settings, keep, sender.control, part)
    finally:
        session.end()
