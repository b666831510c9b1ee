"""Number of load processes."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from engines.cores import usable_cores
from harness.drivers.workers.count import WorkerCount
from harness.records import Phase
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
    assert WorkerCount.of(schedule, "auto", cores=16) == WorkerCount(expected, expected)


@given(st.sampled_from((1, 2, 3, 512, 513, 1500, 5000)), st.integers(1, 64))
def test_auto_leaves_a_core_and_gives_nobody_nothing(users: int, cores: int) -> None:
    """Between one and the cores less one, never more than users; no fewer where there are more cores."""
    schedule = plan(users=users, requests=users)
    count = WorkerCount.of(schedule, "auto", cores).number
    assert 1 <= count <= max(1, cores - 1)
    assert count <= users
    assert WorkerCount.of(schedule, "auto", cores + 1).number >= count


@given(st.integers(1, 256))
def test_a_number_is_meant_as_it_stands(asked: int) -> None:
    """Whatever the cores, unless there are fewer users than processes."""
    found = WorkerCount.of(plan(users=20, requests=40, warmup="10s"), asked, cores=1)
    assert found == WorkerCount(min(asked, 20), min(asked, 20))


@pytest.mark.parametrize(
    ("load", "chunks", "expected"),
    [
        ({"users": 2000, "requests": 4000}, True, (1, 15)),
        ({"users": 6, "requests": 4000}, True, (1, 6)),
        ({"rate": 2500, "requests": 5000, "arrivals": "constant"}, True, (3, 15)),
        ({"users": 2000, "requests": 4000}, False, (4, 4)),
    ],
    ids=["many users", "few users", "a high rate", "chunks are not kept"],
)
def test_users_do_not_count_where_a_warm_up_shows_more(
    load: dict[str, Any], chunks: bool, expected: tuple[int, int]
) -> None:
    """The number may grow up to the cores less one, and to the users; the known rate of an open loop counts."""
    schedule = plan(warmup="10s", **load)
    assert WorkerCount.of(schedule, "auto", cores=16, chunks=chunks) == WorkerCount(*expected)


def seen(late: int, of: int, phase: Phase = Phase.MEASURE) -> dict[str, Any]:
    """A progress with some first tokens of the warm-up."""
    return {"phase": str(phase), "warm_up_first_tokens": of, "warm_up_read_late": late}


@pytest.mark.parametrize(
    ("progress", "too_few"),
    [
        (seen(6, 100), True),
        (seen(5, 100), False),
        (seen(60, 100, Phase.WARMUP), False),
        (seen(60, 100, Phase.COOLDOWN), False),
        (seen(19, 19), False),
    ],
    ids=["more than 5 %", "5 %", "it still warms up", "it is over", "too few to tell"],
)
def test_the_number_is_too_small_if_the_warm_up_was_read_late(progress: dict[str, Any], too_few: bool) -> None:
    """Judged once the warm-up has ended, and while it is worth beginning again."""
    count = WorkerCount(1, 4)
    assert count.look(progress) is too_few is count.too_few


def test_a_number_found_too_small_stays_so_until_it_grows() -> None:
    """Requests that are cut off meanwhile change nothing."""
    count = WorkerCount(1, 4)
    assert count.look(seen(50, 100))
    assert count.look(seen(51, 102))
    assert count.look(seen(3, 102))
    count.grow()
    assert not count.look(seen(0, 100))


def test_more_late_replies_of_the_warm_up_may_end_later() -> None:
    """What the first look found does not bind the next."""
    count = WorkerCount(1, 4)
    assert not count.look(seen(4, 100))
    assert count.look(seen(40, 140))


def test_the_number_doubles_while_that_helps() -> None:
    """At most to the limit; more of the same is no help."""
    count = WorkerCount(1, 3)
    assert count.look(seen(50, 100))
    said = "1 load process read 50% of the first tokens of the warm-up late: it began again with 2"
    assert (count.grow(), count.number, count.too_few) == (said, 2, False)
    assert count.look(seen(20, 100))
    count.grow()
    assert count.number == 3
    assert not count.look(seen(100, 100))
    vain = WorkerCount(2, 8, late=0.5)
    assert not vain.look(seen(45, 100))


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


def test_an_engine_in_the_clients_process_refuses_nobody() -> None:
    """So retries of its requests mean nothing; none is no request for some."""
    assert isinstance(expand(scenario_with({"engine": "simulated"}, retries=0))[0], Cell)
    (refused,) = expand(scenario_with({"engine": "simulated"}, retries=2))
    assert isinstance(refused, Skip)
    assert refused.reason.endswith("where no request is refused; remove `retries`")


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
