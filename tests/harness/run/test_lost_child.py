"""What an observer of a run hears when the process of a configuration is gone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness.run.events import Events
from harness.run.supervisor import StopRequest
from harness.store.manifest import CellEntry, Manifest, TrialEntry
from harness.store.run import RunWriter
from harness.telemetry.prometheus.scraper import ServerPages
from harness.telemetry.sampler import Sampler

BEGUN = {"event": "trial_begun", "trial": 1}


def heard(folder: Path, *events: dict[str, Any], reason: str | None) -> list[dict[str, Any]]:
    """What is passed on after these events and the end of the child for a reason."""
    entry = CellEntry(id="000-a", trials=[TrialEntry(id="000", path="a"), TrialEntry(id="001", index=1, path="b")])
    writer = RunWriter(folder / "run", Manifest(cells=[entry]))
    got: list[dict[str, Any]] = []
    sampler = Sampler(lambda _: None, client_pid=None)
    pages = ServerPages(lambda _: None, lambda _: [], server_is_here=True)
    with pages.reading():
        receiver = Events(writer, entry, (sampler, pages), StopRequest(), lambda _, event: got.append(event))
        for event in events:
            receiver.receive(event)
        got.clear()
        receiver.close(reason)
    sampler.close()
    return got


def test_a_trial_whose_process_was_killed_is_told_with_its_reason(tmp_path: Path) -> None:
    """With the number of its load, at once and not first in the report."""
    (event,) = heard(tmp_path, BEGUN, reason="killed by SIGKILL")
    assert (event["event"], event["trial"]) == ("trial_lost", 1)
    assert "killed by SIGKILL" in event["reason"]


@pytest.mark.parametrize(
    ("reason", "told"),
    [("killed by SIGKILL", "before its first trial: killed by SIGKILL"), (None, "its process exited without output")],
)
def test_a_process_that_reached_no_trial_is_told_as_a_failed_configuration(
    tmp_path: Path, reason: str | None, told: str
) -> None:
    """As if the process had said so itself."""
    assert heard(tmp_path, reason=reason) == [{"event": "failed", "reason": told}]
