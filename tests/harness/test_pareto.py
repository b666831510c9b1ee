"""Dominance: what must be true of it whatever the numbers, and known answers."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from harness.pareto import Figure, beaten_by, beats, better

NAMES = ("speed", "memory", "quality")


@st.composite
def figures(draw: st.DrawFn) -> Figure:
    """Numbers that often coincide, with an interval around them or none."""
    value = float(draw(st.integers(-5, 5)))
    if draw(st.booleans()):
        return Figure(value, math.nan, math.nan)
    return Figure(value, value - draw(st.integers(0, 4)), value + draw(st.integers(0, 4)))


rows = st.dictionaries(st.sampled_from(NAMES), figures(), min_size=1)
tables = st.dictionaries(st.integers(0, 20), rows, min_size=1, max_size=8)


def exact(*values: float) -> dict[str, Figure]:
    """A row whose numbers are known exactly; more is better."""
    return {name: Figure(value, value, value) for name, value in zip(NAMES, values, strict=False)}


@given(tables)
def test_the_front_is_never_empty(table: dict[int, dict[str, Figure]]) -> None:
    """Whatever is missing or uncertain, some row is beaten by none."""
    assert any(not others for others in beaten_by(table).values())


@given(rows, rows)
def test_no_two_rows_beat_each_other(one: dict[str, Figure], other: dict[str, Figure]) -> None:
    """And none beats itself."""
    assert not (beats(one, other) and beats(other, one))
    assert not beats(one, one)


@given(tables)
def test_there_is_no_circle(table: dict[int, dict[str, Figure]]) -> None:
    """Going from a row to one that beats it ends, also where rows have different figures."""
    beaten = beaten_by(table)
    for name in table:
        here, steps = name, 0
        while beaten[here]:
            here, steps = beaten[here][0], steps + 1
            assert steps <= len(table)


@given(rows, rows)
def test_who_beats_is_nowhere_worse_and_somewhere_better(one: dict[str, Figure], other: dict[str, Figure]) -> None:
    """By the values everywhere, beyond the intervals in one figure."""
    if beats(one, other):
        assert all(one[name].value >= figure.value for name, figure in other.items())
        assert any(one[name].low > figure.high for name, figure in other.items())


@given(rows, rows, st.sampled_from(NAMES))
def test_wider_intervals_never_make_a_row_win(one: dict[str, Figure], other: dict[str, Figure], name: str) -> None:
    """Knowing less about the better row cannot prove more."""
    if name in one:
        figure = one[name]
        wider = one | {name: Figure(figure.value, figure.low - 3, figure.high + 3)}
        assert beats(one, other) or not beats(wider, other)


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=10))
def test_exact_numbers_give_the_textbook_front(values: list[tuple[int, int, int]]) -> None:
    """Without uncertainty it is the usual definition."""
    table = {number: exact(*map(float, one)) for number, one in enumerate(values)}
    for number, others in beaten_by(table).items():
        own = values[number]
        usual = any(all(a >= b for a, b in zip(one, own, strict=True)) and one != own for one in values)
        assert bool(others) == usual


def test_overlapping_intervals_beat_nobody() -> None:
    """Faster by value, but perhaps by chance; equal elsewhere."""
    fast = {"speed": Figure(10, 8, 12), "memory": Figure(1, 1, 1)}
    slow = {"speed": Figure(9, 7, 11), "memory": Figure(1, 1, 1)}
    assert not beats(fast, slow)
    assert beats(fast | {"speed": Figure(15, 13, 17)}, slow)


def test_what_was_not_measured_beats_nobody() -> None:
    """A row without quality cannot beat one with it, but can be beaten in what it has."""
    without, with_all = exact(5, 5), exact(4, 4, 1)
    assert not beats(without, with_all)
    assert beats(exact(6, 6, 0), without)


def test_smaller_is_better_where_it_is_said() -> None:
    """Memory and divergence are turned round."""
    small = Figure.of(1.0, 0.9, 1.1, more_is_better=False)
    large = Figure.of(2.0, 1.9, 2.1, more_is_better=False)
    assert better(small, large)
    assert not better(large, small)
