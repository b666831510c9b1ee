"""Number of load processes."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from engines.cores import usable_cores
from harness.drivers.workers.pipes import worker_count
from harness.scenario.model import Scenario
from harness.schedule.cells import Cell, Skip
from harness.schedule.matrix import expand
from harness.schedule.requests import Schedule, build
from tests.plans import load_of, workload_of

HTTP = {"engine": "http", "url": "http://127.0.0.1:1", "served_model": "m"}


@cache
def plan(output_tokens: int = 4, **load: Any) -> Schedule:
    """A plan of a sustained load."""
    return build(load_of(kind="sustained", **load), workload_of(output_tokens=output_tokens), 1)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (plan(users=64, requests=100), 1),
        (plan(users=512, requests=1000), 1),
        (plan(users=513, requests=1000), 2),
        (plan(users=2000, requests=4000), 4),
        (plan(rate=900, requests=900, arrivals="constant"), 1),
        (plan(rate=2500, requests=5000, arrivals="constant"), 3),
        (plan(rate=200, requests=400, arrivals="constant", output_tokens=500), 4),
        (plan(rate=1, requests=1, arrivals="constant", output_tokens=100_000), 2),
    ],
    ids=["few users", "512 users", "513 users", "2000 users", "900/s", "2500/s", "100k tokens/s", "few requests"],
)
def test_auto_follows_from_the_plan(schedule: Schedule, expected: int) -> None:
    """Users, requests due in the busiest second, or the tokens they ask for, whichever needs most."""
    assert worker_count(schedule, "auto", cores=16) == expected


@given(st.sampled_from((1, 2, 3, 512, 513, 1500, 5000)), st.integers(1, 64))
def test_auto_leaves_a_core_and_gives_nobody_nothing(users: int, cores: int) -> None:
    """Between one and the cores less one, never more than users; no fewer where there are more cores."""
    schedule = plan(users=users, requests=users)
    count = worker_count(schedule, "auto", cores)
    assert 1 <= count <= max(1, cores - 1)
    assert count <= users
    assert worker_count(schedule, "auto", cores + 1) >= count


@given(st.integers(1, 256))
def test_a_number_is_meant_as_it_stands(asked: int) -> None:
    """Whatever the cores, unless there are fewer users than processes."""
    assert worker_count(plan(users=20, requests=40), asked, cores=1) == min(asked, 20)


def test_this_machine_has_a_core() -> None:
    """There is at least one, in any group."""
    assert usable_cores() >= 1


def scenario_with(engine: dict[str, Any], **load: Any) -> Scenario:
    """A scenario of one load."""
    one = {"kind": "sustained", "users": 4, "requests": 8, **load}
    return Scenario.model_validate({"engines": [engine], "workload": {"output_tokens": 4}, "load": [one]})


def test_an_engine_in_the_clients_process_cannot_have_several() -> None:
    """The cell is not run and the reason is one sentence; `auto` and 1 are no request for several."""
    for workers in ("auto", 1):
        assert isinstance(expand(scenario_with({"engine": "simulated"}, workers=workers))[0], Cell)
    (refused,) = expand(scenario_with({"engine": "simulated"}, workers=2))
    assert isinstance(refused, Skip)
    assert "inside the process of the load generator, not in 2" in refused.reason


@pytest.mark.parametrize("workers", [0, -1, 257, 1.5, "many", [1, 2]])
def test_other_values_are_refused(workers: Any) -> None:
    """A whole number from 1 to 256, or `auto`."""
    with pytest.raises(ValidationError):
        scenario_with(HTTP, workers=workers)


def test_locusts_workers_are_others() -> None:
    """A number beside `driver: locust` is refused with what to do instead."""
    with pytest.raises(ValidationError, match="--expect-workers"):
        scenario_with(HTTP, driver="locust", workers=2)
    scenario_with(HTTP, driver="locust", workers="auto")
