"""The order of cells within repetitions: fair, and fixed by the seed."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.scenario.model import Scenario
from harness.schedule.cells import Cell, Skip
from harness.schedule.matrix import expand, places

SEEDS = st.integers(0, 2**63)


def scenario_of(**keys: Any) -> Scenario:
    """Three levels of the simulated engine, several times."""
    engine = {"engine": "simulated", "quantization": ["q8_0", "q4_0", "f16"]}
    load = [{"kind": "single_user", "requests": 3}]
    return Scenario.model_validate({"engines": [engine], "load": load, "repetitions": 6, **keys})


@pytest.mark.parametrize("count", range(1, 10))
@given(seed=SEEDS)
def test_every_cell_stands_everywhere_and_behind_every_other_equally_often(count: int, seed: int) -> None:
    """Over n repetitions of n cells, 2n where n is odd: as often at each place and behind each other."""
    repetitions = range(1, (2 * count if count % 2 else count) + 1)
    rows = [places(count, repetition, seed) for repetition in repetitions]
    at = Counter((place, cell) for row in rows for place, cell in enumerate(row))
    behind = Counter(pair for row in rows for pair in pairwise(row))
    assert len(at) == count * count
    assert len(behind) == count * (count - 1)
    assert len(set(at.values())) == 1
    assert len(set(behind.values())) <= 1


@given(st.integers(1, 40), st.integers(1, 100), SEEDS)
def test_an_order_leaves_nothing_out(count: int, repetition: int, seed: int) -> None:
    """Each cell once; the first repetition in the order of the file, each even one the one before it backwards."""
    found = places(count, repetition, seed)
    assert sorted(found) == list(range(count))
    assert places(count, 1, seed) == list(range(count))
    if repetition % 2 == 0:
        assert found == places(count, repetition - 1, seed)[::-1]


def test_numbers_and_seeds_do_not_depend_on_the_order() -> None:
    """Cells are the same whatever the order, which the seed fixes; blocks stay blocks."""
    interleaved = expand(scenario_of())
    assert [one.index for one in interleaved] != sorted(one.index for one in interleaved)
    again = expand(scenario_of())
    assert [one.id for one in again] == [one.id for one in interleaved]
    names = {(one.level, one.repetition): (one.index, one.id) for one in interleaved}
    assert [names["q8_0", 1][0], names["q4_0", 1][0], names["q8_0", 2][0]] == [0, 1, 3]
    blocks = expand(scenario_of(order="blocks"))
    assert [one.index for one in blocks] == list(range(18))
    assert [one.level for one in blocks[:6]] == ["q8_0"] * 6
    trials = {(one.level, one.repetition): one.trials[0].seed for one in blocks if isinstance(one, Cell)}
    for one in interleaved:
        assert isinstance(one, Cell)
        assert one.trials[0].seed == trials[one.level, one.repetition]


def test_cells_that_cannot_run_take_no_turn() -> None:
    """They keep their places, and those that run are ordered among themselves."""
    levels = ["q8_0", "no_such", "q4_0"]
    planned = expand(scenario_of(engines=[{"engine": "simulated", "quantization": levels}], repetitions=2))
    assert [isinstance(one, Skip) for one in planned] == [False, True, False] * 2
    assert [one.level for one in planned if isinstance(one, Cell)] == ["q8_0", "q4_0", "q4_0", "q8_0"]
