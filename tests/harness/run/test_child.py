"""A trial in the process of its configuration: whose end it is if the load is stopped before it began."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from harness.drivers.base import Control
from harness.errors import Interrupted, TrialFailed
from harness.run import child


@pytest.mark.parametrize(("dies", "error"), [(True, TrialFailed), (False, Interrupted)])
def test_an_engine_that_ends_before_the_load_begins_fails_the_trial(
    monkeypatch: pytest.MonkeyPatch, dies: bool, error: type[Exception]
) -> None:
    """Load processes only hear that they are to stop; else it was the user."""
    died = asyncio.Event()

    async def watch(engine: Any, control: Control) -> str | None:
        if not dies:
            await asyncio.Event().wait()
        control.stop()
        died.set()
        return "the server ended with exit status 1"

    async def send(trial: Any, schedule: Any) -> Any:
        if dies:
            await died.wait()
            await asyncio.sleep(0)
        raise Interrupted("stopped before the load began")

    monkeypatch.setattr(child, "watch_engine", watch)
    monkeypatch.setattr(child, "sent_by_enough", send)
    trial: Any = SimpleNamespace(engine=None, control=Control())
    nothing: Any = None
    with pytest.raises(error, match="the server ended" if dies else "stopped before"):
        asyncio.run(child.run_trial(trial, nothing))
