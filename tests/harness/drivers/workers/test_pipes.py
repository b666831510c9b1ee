"""Load processes that cannot be started."""

from __future__ import annotations

import asyncio
import errno
from pathlib import Path
from typing import Any

import pytest

from engines.base import Endpoint
from harness.drivers.base import Control, DriveSettings
from harness.drivers.workers.part import PartSpec
from harness.drivers.workers.pipes import LoadProcesses
from harness.errors import TrialFailed
from harness.schedule.requests import build
from tests.plans import load_of, workload_of


def test_a_system_that_starts_no_more_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error is one sentence with the fix, without a wait."""

    async def refused(*_: Any, **__: Any) -> None:
        raise OSError(errno.EAGAIN, "Resource temporarily unavailable")

    async def main() -> None:
        part = PartSpec({}, 0, 0, "", DriveSettings(1), Endpoint("http://127.0.0.1:1", "openai-chat", "m"))
        schedule = build(load_of(kind="sustained", rate=10, requests=4), workload_of(), 1)
        await LoadProcesses(part, schedule, tmp_path, Control(), 2).drive({})

    monkeypatch.setattr(asyncio, "create_subprocess_exec", refused)
    with pytest.raises(TrialFailed, match="load process 0 could not be started: Resource temporarily unavailable"):
        asyncio.run(main())
