"""Failing connections (wrong addresses, no free sockets), and records that cannot be stored."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable
from typing import Any

import pytest

from engines.base import Endpoint
from harness.drivers.base import Control, DriveReport, DriveSettings
from harness.drivers.drive import drive
from harness.drivers.http.connection import Connection
from harness.errors import StorageFailed
from harness.records import Record, Status
from harness.telemetry.cgroup import read_ceilings
from tests.scripted_server import Call, Plan, measure, open_plan, run, serving

pytestmark = pytest.mark.slow


async def good(call: Call) -> None:
    """A good reply."""
    await call.good()


async def good_and_gone(call: Call) -> None:
    """A good reply, and the connection is closed without a word."""
    await call.good()
    call.writer.close()


@pytest.mark.parametrize("dead", [1, 2])
def test_a_name_whose_first_addresses_lead_nowhere(dead: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each server is reached by the address that answers, and trying the others is no failed connection."""

    async def main() -> tuple[list[Record], DriveReport]:
        async def found(host: str, port: int, **_: Any) -> list[Any]:
            # 127.0.0.2 is this machine, too, but the servers do not listen there
            hosts = ["127.0.0.2"] * dead + ["127.0.0.1"]
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (one, port)) for one in hosts]

        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", found)
        async with serving(good) as one, serving(good) as other:
            urls = [f"http://localhost:{server.port}" for server in (one, other)]
            endpoint = Endpoint(urls[0], "openai-completions", "stub", others=urls[1:])
            return await measure(endpoint, open_plan([0, 10, 20, 30]))

    records, report = asyncio.run(main())
    assert [record.status for record in records] == [Status.OK] * 4
    assert report.connect_errors == 0
    assert report.notes == []


@pytest.mark.parametrize("script", [good, good_and_gone])
def test_no_more_sockets(script: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the start it is a note, afterwards the rows of those that found no connection; the trial goes on."""
    real, opened = Connection, 0

    def limited(*arguments: Any) -> Any:
        nonlocal opened
        opened += 1
        if opened > 3:
            raise OSError(errno.EMFILE, "Too many open files")
        return real(*arguments)

    monkeypatch.setattr("harness.drivers.http.pool.Connection", limited)
    records, report, _ = run(script, Plan(8, users=3), warm_connections=5)
    why = f"Too many open files: `ulimit -n` lets this process have {read_ceilings().files}, all are in use"
    assert f"before the start: 3 of 5 connections could be opened ({why})" in report.notes
    assert report.connections_opened == 3
    lost = [record for record in records if record.status != Status.OK]
    assert len(records) == 8
    assert len(lost) == (0 if script is good else 5)
    assert {record.error for record in lost} <= {f"no connection can be opened: {why}"}


@pytest.mark.parametrize("order", [Control.stop, Control.abort])
def test_records_that_cannot_be_kept_when_a_trial_is_stopped(order: Callable[[Control], None]) -> None:
    """The rows that were never sent find no space: the trial ends with that error, whoever stopped it."""

    def keep(record: Record) -> None:
        if record.status == Status.NOT_SENT:
            raise StorageFailed("no space")

    async def main() -> None:
        control = Control()
        async with serving(good) as server:
            asyncio.get_running_loop().call_later(0.1, order, control)
            plan: Any = open_plan([0, 60_000])
            trial = drive(plan, server.endpoint, DriveSettings(10**11), keep, control)
            await asyncio.wait_for(trial, 60)

    with pytest.raises(StorageFailed, match="no space"):
        asyncio.run(main())
