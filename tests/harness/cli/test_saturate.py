"""`harness saturate --users`: which numbers of users are tried, for how long, and what is refused beside them."""

from __future__ import annotations

from itertools import pairwise

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from harness.cli.commands.saturate import check_alone, numbers_of_users, search, slo_sets, sweep
from harness.errors import UsageError
from harness.scenario.loads.kinds import Sustained


def test_a_largest_number_gives_steps_of_half() -> None:
    """Doubled, and one between each two; a list is taken as it is."""
    assert numbers_of_users("24") == [1, 2, 3, 4, 6, 8, 12, 16, 24]
    assert numbers_of_users("10") == [1, 2, 3, 4, 6, 8, 10]
    assert numbers_of_users("8, 4,16") == [4, 8, 16]


@given(st.integers(1, 100_000))
def test_no_step_is_larger_than_twice_the_last(largest: int) -> None:
    """From one user to the largest number, each once; from 2 on by half at most."""
    found = numbers_of_users(str(largest))
    assert (found[0], found[-1]) == (1, largest)
    assert all(one < other <= max(2, 1.5 * one) for one, other in pairwise(found))


@pytest.mark.parametrize("text", ["", "0", "-4", "x", "4,x", "1.5", "1000000"])
def test_numbers_that_are_none_are_refused(text: str) -> None:
    """With what to write instead."""
    with pytest.raises(UsageError, match=r"write the largest number of users, such as 64, or a list"):
        numbers_of_users(text)


def test_each_number_has_its_share_of_the_time() -> None:
    """A fifth of it is warm-up."""
    (load,) = yaml.safe_load(sweep([1, 2, 4], "90s").removeprefix("load="))
    assert load == {"kind": "sustained", "users": [1, 2, 4], "warmup": "6s", "duration": "24s"}
    assert Sustained.model_validate(load | {"users": 1}).duration_s == 24.0


def test_a_time_that_is_too_short_is_refused() -> None:
    """The sentence has the time of each number."""
    with pytest.raises(UsageError, match=r"12 numbers of users would have 2.5 s each, and need 5 s"):
        sweep(numbers_of_users("64"), "30s")
    with pytest.raises(UsageError, match="unknown unit"):
        sweep([1, 2], "3x")


def test_options_of_a_search_by_rate_are_refused_beside_users() -> None:
    """None of them is ignored."""
    check_alone({"measure": None, "first_rate": None})
    with pytest.raises(UsageError, match=r"--first-rate is for a search by rate"):
        check_alone({"first_rate": 2.0})
    with pytest.raises(UsageError, match=r"a limit such as `attainment >= 99%` sets the share"):
        check_alone({"attainment": 0.9})


def test_a_search_and_an_slo_are_keys_of_the_scenario() -> None:
    """As with `--set`."""
    assert search({"within": "3m", "first_rate": None}) == "load=[{kind: saturate, within: 3m}]"
    assert slo_sets("ttft=500ms, tpot=50ms") == ["slo.ttft=500ms", "slo.tpot=50ms"]
    assert slo_sets(None) == []
