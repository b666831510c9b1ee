"""What the manifest says of a plan before the first request."""

from __future__ import annotations

from typing import Any

import pytest

from harness.trial import trial_facts
from tests.plans import schedule_of


@pytest.mark.parametrize(
    ("load", "label", "planned"),
    [
        ({"kind": "sustained", "rate": 5, "requests": 10}, "open", {"total": 10, "warmup": 0, "measure": 10}),
        ({"kind": "sustained", "users": 2, "requests": 10}, "closed", {"total": 10, "warmup": None, "measure": 10}),
        (
            {"kind": "sustained", "users": 2, "duration": "1s"},
            "closed",
            {"total": None, "warmup": None, "measure": None},
        ),
        (
            {"kind": "sessions", "rate": 5, "sessions": 4, "turns": 3},
            "partly_open",
            {"total": 12, "warmup": None, "measure": 12},
        ),
    ],
)
def test_it_promises_what_is_known(load: dict[str, Any], label: str, planned: dict[str, int | None]) -> None:
    """The loop, and how many requests each phase will have where the replies have no say in it."""
    facts = trial_facts(schedule_of(**load))
    assert (facts["loop"], facts["planned"]) == (label, planned)


def test_how_many_turns_fall_into_a_window_nobody_knows() -> None:
    """Of conversations for a time only their beginnings are planned."""
    facts = trial_facts(schedule_of(kind="sessions", rate=5, turns=3, duration="2s", timeout="1s"))
    assert facts["planned"]["measure"] is None
    assert facts["planned"]["warmup"] is None
