"""Conversations that are driven: in virtual time against the simulated engine, or over HTTP against a script."""

from __future__ import annotations

import json
from typing import Any

from engines.base import Endpoint, EngineSpec, Request
from engines.simulated import SimulatedEngine
from harness.drivers.base import Control, DriveSettings
from harness.drivers.drive import drive
from harness.records import Phase, Record
from harness.schedule.requests import Schedule
from tests import virtual_time
from tests.scripted_server import SECOND, serving


class Remembering(SimulatedEngine):
    """Keeps what it was asked."""

    def __init__(self, **options: Any) -> None:
        super().__init__(EngineSpec("simulated", options=options))
        self.asked: list[Request] = []

    async def generate(self, request: Request) -> Any:
        """Like the simulated engine."""
        self.asked.append(request)
        async for one in super().generate(request):
            yield one


def counted(records: list[Record]) -> list[Record]:
    """Return the counting records in the order of their numbers, without cooldown."""
    return sorted((one for one in records if one.phase != Phase.COOLDOWN), key=lambda record: record.request)


def in_virtual_time(plan: Schedule, **options: Any) -> tuple[list[Record], list[Request]]:
    """Records in the order of their numbers, without the cooldown, and what the engine was asked."""
    records: list[Record] = []
    engine = Remembering(**options)

    async def body() -> None:
        await engine.start()
        await drive(plan, engine, DriveSettings(60 * SECOND, keep_text=True), records.append)
        await engine.stop()

    virtual_time.run(body())
    return counted(records), engine.asked


async def served(
    plan: Schedule, script: Any, dialect: str = "openai-completions", control: Control | None = None
) -> tuple[list[Record], list[dict[str, Any]], int]:
    """Records in the order of their numbers, without the cooldown, the bodies that the server got, and its number of
    connections.
    """
    records: list[Record] = []
    async with serving(script) as server:
        endpoint = Endpoint(server.endpoint.url, dialect, "stub")
        await drive(plan, endpoint, DriveSettings(60 * SECOND, keep_text=True), records.append, control)
        bodies = [json.loads(call.body) for call in server.calls]
        return counted(records), bodies, server.connections
