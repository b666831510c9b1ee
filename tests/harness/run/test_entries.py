"""What the manifest says of a plan before the first request."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness.run.entries import plan_entry
from harness.scenario.workload import Workload
from harness.schedule.requests import build
from harness.store.manifest import PlannedCounts
from tests.plans import load_of, schedule_of, workload_of


@pytest.mark.parametrize(
    ("load", "label", "planned"),
    [
        ({"kind": "sustained", "rate": 5, "requests": 10}, "open", {"total": 20, "warmup": 0, "measure": 10}),
        ({"kind": "sustained", "users": 2, "requests": 10}, "closed", {"total": None, "warmup": None, "measure": 10}),
        (
            {"kind": "sustained", "users": 2, "duration": "1s"},
            "closed",
            {"total": None, "warmup": None, "measure": None},
        ),
        (
            {"kind": "sessions", "rate": 5, "sessions": 4, "turns": 3},
            "partly_open",
            {"total": 24, "warmup": None, "measure": None},
        ),
    ],
)
def test_it_promises_what_is_known(load: dict[str, Any], label: str, planned: dict[str, int | None]) -> None:
    """The loop, all rows with those that may follow the measured ones, and how many requests each phase will have where
    the replies have no say in it.
    """
    entry = plan_entry(schedule_of(**load))
    assert (entry.loop, entry.planned) == (label, PlannedCounts.model_validate(planned))


def test_how_many_turns_fall_into_a_window_nobody_knows() -> None:
    """Of conversations for a time only their beginnings are planned."""
    entry = plan_entry(schedule_of(kind="sessions", rate=5, turns=3, duration="2s", timeout="1s"))
    assert entry.planned is not None
    assert entry.planned.measure is None
    assert entry.planned.warmup is None


def test_files_of_prompts_are_told_of(tmp_path: Path) -> None:
    """How many lines each has and with which of them it begins, so that loads longer than the file can be found."""
    path = tmp_path / "prompts.jsonl"
    path.write_text('{"prompt": "One"}\n{"prompt": "Two"}\n{"prompt": "Three"}\n')
    workload = Workload.model_validate({"prompts": path, "output_tokens": 5})
    plan = build(load_of(kind="single_user", requests=3), workload, 1)
    entry = plan_entry(plan)
    (offset,) = (one["offset"] for one in entry.prompt_files.values())
    assert entry.prompt_files == {"default": {"lines": 3, "offset": offset}}
    assert plan.request(0).prompt == ["One", "Two", "Three"][offset]
    assert entry.shares_prompts
    assert plan_entry(schedule_of(kind="single_user", requests=3)).prompt_files == {}


@pytest.mark.parametrize(
    ("workload", "shares"),
    [({}, False), ({"prefix": {"tokens": 20}}, True), ({"repeat": 0.1}, True), ({"turns": 2}, True)],
)
def test_whether_requests_begin_alike_is_told(workload: dict[str, Any], shares: bool) -> None:
    """Common beginnings, repeats and conversations share prompts by plan; others that are found in a cache should not
    be there.
    """
    plan = build(load_of(kind="sustained", users=2, requests=10), workload_of(**workload), 1)
    assert plan_entry(plan).shares_prompts is shares
