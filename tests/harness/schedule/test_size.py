"""A plan that does not fit into memory is refused before it is made."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from harness.schedule.cells import TrialPlan
from harness.schedule.estimate import BYTES_PER_REQUEST, plan_too_large, processes_of
from harness.schedule.requests import build
from tests.forked import harness
from tests.plans import load_of, workload_of

GIB = 2**30
HUGE: dict[str, dict[str, Any]] = {
    "rate by time": {"kind": "sustained", "rate": 10_000_000, "duration": "1000s"},
    "number": {"kind": "sustained", "rate": 2, "requests": 10**10},
    "beyond any number": {"kind": "sustained", "rate": 1e300, "duration": "1000s"},
    "ramp": {"kind": "sustained", "rate": 10_000_000, "ramp": {"over": "1000s"}, "duration": "2000s"},
    "steps": {"kind": "steps", "steps": [{"rate": 10_000_000, "for": "1000s"}]},
    "bursts": {"kind": "burst", "rate": 1, "burst_rate": 1e9, "burst_for": "1s", "every": "10s", "duration": "1000s"},
    "spike": {"kind": "burst", "spike": {"requests": 10**10, "within": "1s"}},
    "warm-up": {"kind": "sustained", "rate": 1_000_000, "duration": "1s", "warmup": "10000s"},
    "time-out": {"kind": "sustained", "rate": 1_000_000, "duration": "1s", "timeout": "10000s"},
    "sessions": {"kind": "sessions", "rate": 1000, "sessions": 10**10, "turns": 3},
    "users": {"kind": "sustained", "users": 10**9, "requests": 10},
}


def plan(**load: Any) -> TrialPlan:
    """A trial's plan, as far as its size goes."""
    return cast("TrialPlan", SimpleNamespace(load=load_of(**load), workload=workload_of()))


@pytest.mark.parametrize("name", HUGE)
def test_ten_thousand_million_requests_are_refused(name: str) -> None:
    """The message contains the needed memory, the allowed memory (half of 8 GiB) and the fix."""
    why = plan_too_large(plan(**HUGE[name]), free_bytes=8 * GIB)
    assert why is not None
    assert "4 GiB are allowed for a plan" in why
    assert why.endswith(("until there are 33,000,000 at most", "write 2,000,000 at most"))
    assert len(why) < 300


def test_what_fits_is_not_refused() -> None:
    """Ten million requests take a little more than a GiB; a closed loop makes its rows as it goes on."""
    assert plan_too_large(plan(kind="sustained", rate=1000, requests=10_000_000), free_bytes=8 * GIB) is None
    assert plan_too_large(plan(kind="sustained", users=1000, requests=10**12), free_bytes=8 * GIB) is None
    assert plan_too_large(plan(kind="sustained", rate=2, duration="60s")) is None


def test_processes_share_what_is_free() -> None:
    """Each that sends makes the plan, and so does the one that starts them."""
    four = plan(kind="sustained", rate=1000, requests=20_000_000, workers=4)
    assert processes_of(four, served=True) == 5
    assert processes_of(four, served=False) == 1
    assert processes_of(plan(kind="sustained", rate=1, requests=5, driver="locust"), served=True) == 2
    assert processes_of(plan(kind="sustained", rate=1, requests=5, max_concurrency=2), served=True) == 1
    assert plan_too_large(four, free_bytes=8 * GIB) is None
    why = plan_too_large(four, 5, free_bytes=8 * GIB)
    assert why is not None
    assert "819 MiB are allowed for a plan (half of the free memory, shared by 5 processes)" in why


def test_a_long_trace_is_refused(tmp_path: Path) -> None:
    """By the size of its file."""
    file = tmp_path / "trace.csv"
    with file.open("wb") as sparse:
        sparse.truncate(3 * GIB)
    why = plan_too_large(plan(kind="trace", file=str(file)), free_bytes=8 * GIB)
    assert why is not None
    assert "need about 48 GiB" in why


@pytest.mark.parametrize(
    ("load", "workload"),
    [
        ({"kind": "sustained", "rate": 10_000, "duration": "10s", "timeout": "5s"}, {}),
        ({"kind": "sustained", "rate": 10_000, "requests": 100_000, "timeout": "5s", "arrivals": "gamma", "cv": 3}, {}),
        ({"kind": "sustained", "rate": 10_000, "requests": 200_000, "timeout": "1s"}, {}),
        ({"kind": "sustained", "rate": 10_000, "ramp": {"over": "9s"}, "duration": "10s", "timeout": "5s"}, "all"),
        (
            {"kind": "sessions", "rate": 9_000, "sessions": 50_000, "timeout": "5s", "turns": 3, "think_time": "1s"},
            "all",
        ),
    ],
)
def test_a_plan_takes_no_more_than_is_said(load: dict[str, Any], workload: Any) -> None:
    """The most memory that numpy and Python had in use while a plan was made, over the requests that are expected."""
    more = {"repeat": 0.2, "cancel": {"share": 0.2, "after": "1s"}} if workload == "all" else {}
    wanted, asked = load_of(**load), workload_of(**more)
    expected = (wanted.expected_requests(asked) + wanted.further_requests(asked)).high
    assert expected is not None
    tracemalloc.start()
    build(wanted, asked, 1)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < BYTES_PER_REQUEST * expected


def test_the_command_refuses_it_before_anything_runs(tmp_path: Path) -> None:
    """Exit 2, one sentence, no folder."""
    (tmp_path / "s.yaml").write_text(
        "engines: [{engine: simulated}]\nworkload: {prompt_tokens: 5, output_tokens: 1}\n"
        "load: [{kind: sustained, rate: 10000000, duration: 1000s}]\n"
    )
    ended = harness("run", "s.yaml", "--out", "run", cwd=tmp_path)
    assert ended.code == 2
    assert ended.err.startswith("harness: load sustained of 000-simulated: about 11,200,000,000 planned requests need")
    assert ended.err.count("\n") == 1
    assert not (tmp_path / "run").exists()
