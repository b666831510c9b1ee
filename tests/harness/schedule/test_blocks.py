"""A scenario in blocks: how many, how long, and what of the load they keep."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from harness.errors import UsageError
from harness.scenario.model import Scenario
from harness.scenario.reader import as_checked
from harness.schedule.blocks import blocks_in, cut, in_blocks, number_of, whole
from harness.schedule.cells import Cell
from harness.schedule.matrix import expand
from tests.plans import load_of


@pytest.mark.parametrize(
    ("load", "blocks", "size"),
    [
        ({"kind": "sustained", "rate": 20, "duration": "60s"}, 12, 5.0),
        ({"kind": "sustained", "rate": 20, "duration": "8s"}, 4, 2.0),
        ({"kind": "sustained", "rate": 100, "duration": "10m"}, 24, 25.0),
        ({"kind": "sustained", "rate": 0.2, "duration": "60s"}, 2, 30.0),
        ({"kind": "sustained", "users": 4, "duration": "33s"}, 6, 5.5),
        ({"kind": "sustained", "rate": 2, "requests": 60}, 6, 10),
        ({"kind": "sustained", "rate": 20, "requests": 40}, 4, 10),
        ({"kind": "sustained", "users": 8, "requests": 40}, 2, 20),
        ({"kind": "single_user", "requests": 30}, 4, 8),
        ({"kind": "single_user", "requests": 3}, 2, 2),
        ({"kind": "sessions", "rate": 1, "sessions": 30}, 6, 5),
    ],
)
def test_a_load_is_cut_into_an_even_number_of_blocks(load: dict[str, Any], blocks: int, size: float) -> None:
    """Each takes about 5 s, and has five requests or two for each user. Together they measure as much."""
    found = cut([load_of(**load)])
    assert len(found) == blocks == blocks_in(load_of(**load))
    sizes = {one.measured_s if one.measured_s is not None else one.measured_count for one in found}
    assert sizes == {size}


@given(some.floats(0.05, 500), some.floats(0.5, 5000))
def test_blocks_of_time_add_up(rate: float, seconds: float) -> None:
    """However short or long the load."""
    found = cut([load_of(kind="sustained", rate=rate, duration=f"{seconds:.3f}s")])
    assert len(found) % 2 == 0
    assert 2 <= len(found) <= 24
    assert sum(one.measured_s or 0.0 for one in found) == pytest.approx(float(f"{seconds:.3f}"))


def test_the_first_block_has_the_whole_warm_up() -> None:
    """The others need it to fill the server only: at most half a block, or 2 s."""
    by_time = cut([load_of(kind="sustained", rate=20, duration="20s", warmup="10s")])
    assert [one.warmup_s for one in by_time] == [10.0, 2.5, 2.5, 2.5]
    by_count = cut([load_of(kind="sustained", users=1, requests=20, warmup="10s")])
    assert [one.warmup_s for one in by_count] == [10.0, 2.0, 2.0, 2.0]


def test_each_block_has_its_own_requests_and_the_name_of_its_load() -> None:
    """Both variants send the same ones; what another process is given has the same blocks."""
    load = [
        {"kind": "single_user", "requests": 20},
        {"kind": "sustained", "rate": 20, "duration": "8s", "name": "a-block-of-flats"},
    ]
    engines = [{"engine": "simulated", "variants": {"base": {}, "head": {}}}]
    scenario = in_blocks(Scenario.model_validate({"engines": engines, "load": load, "restart": "per_trial"}))
    base, head = (cell for cell in expand(as_checked(scenario.resolved()), env={}) if isinstance(cell, Cell))
    names = [plan.name for plan in base.trials]
    assert names[0] == "single_user-block-01"
    assert [whole(name) for name in names] == ["single_user"] * 4 + ["a-block-of-flats"] * 4
    assert [number_of(name) for name in names] == [1, 2, 3, 4] * 2
    assert (whole("a-block-of-flats"), number_of("a-block-of-flats")) == ("a-block-of-flats", None)
    assert [plan.seed for plan in base.trials] == [plan.seed for plan in head.trials]
    assert len({plan.seed for plan in base.trials}) == 8
    assert scenario.restart == "per_cell"


@pytest.mark.parametrize(
    ("load", "sentence"),
    [
        ({"kind": "steps", "steps": [{"rate": 1, "for": "5s"}]}, "load steps: its rate changes by plan"),
        (
            {"kind": "sustained", "rate": 5, "duration": "9s", "ramp": {"from": 1, "over": "3s"}},
            "load sustained: its rate changes by plan",
        ),
        ({"kind": "sustained", "rate": 5, "duration": "9s", "driver": "locust"}, "Locust starts anew for each block"),
    ],
)
def test_a_load_without_equal_parts_is_refused(load: dict[str, Any], sentence: str) -> None:
    """With what to leave out."""
    with pytest.raises(UsageError, match=sentence):
        cut([load_of(**load)])
