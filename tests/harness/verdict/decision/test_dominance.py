"""Dominance: what must be true of it whatever the numbers, and known answers."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.verdict.decision.dominance import Figure, better, dominates, dominating, not_worse, undecided

NAMES = ("speed", "memory", "quality")


@st.composite
def figures(draw: st.DrawFn) -> Figure:
    """Numbers that often coincide, with an interval around them or none."""
    value = float(draw(st.integers(-5, 5)))
    if draw(st.booleans()):
        return Figure(value, math.nan, math.nan)
    return Figure(value, value - draw(st.integers(0, 4)), value + draw(st.integers(0, 4)))


def alike_within(value: float, share: float) -> Figure:
    """Something of which less is better, and of which a difference of so much says nothing."""
    return Figure.alike_within(value, share)


def less(value: float, low: float, high: float) -> Figure:
    """Something of which less is better."""
    return Figure.of(value, low, high, more_is_better=False)


rows = st.dictionaries(st.sampled_from(NAMES), figures(), min_size=1)
tables = st.dictionaries(st.integers(0, 20), rows, min_size=1, max_size=8)


def exact(*values: float) -> dict[str, Figure]:
    """A row whose numbers are known exactly; more is better."""
    return {name: Figure(value, value, value) for name, value in zip(NAMES, values, strict=False)}


@given(tables)
def test_the_front_is_never_empty(table: dict[int, dict[str, Figure]]) -> None:
    """Whatever is missing or uncertain, some row is dominated by none."""
    assert any(not others for others in dominating(table).values())


@given(rows, rows)
def test_no_two_rows_dominate_each_other(one: dict[str, Figure], other: dict[str, Figure]) -> None:
    """And none dominates itself."""
    assert not (dominates(one, other) and dominates(other, one))
    assert not dominates(one, one)


@given(tables)
def test_there_is_no_circle(table: dict[int, dict[str, Figure]]) -> None:
    """Going from a row to those that beat it ends, whichever way, also where rows have different figures."""
    beaten, left = dominating(table), set(table)
    while settled := {name for name in left if not left & set(beaten[name])}:
        left -= settled
    assert not left


@given(tables)
def test_who_is_named_dominates(table: dict[int, dict[str, Figure]]) -> None:
    """A circle takes some away, and nothing adds any."""
    for name, others in dominating(table).items():
        assert all(dominates(table[other], table[name]) for other in others)


@given(rows, rows)
def test_who_dominates_is_nowhere_worse_and_somewhere_better(one: dict[str, Figure], other: dict[str, Figure]) -> None:
    """Not beyond the intervals anywhere, beyond them in one figure."""
    if dominates(one, other):
        assert set(one) == set(other)
        assert not any(better(figure, one[name]) for name, figure in other.items())
        assert any(one[name].low > figure.high for name, figure in other.items())


@given(rows, rows, st.sampled_from(NAMES))
def test_wider_intervals_never_make_a_row_win(one: dict[str, Figure], other: dict[str, Figure], name: str) -> None:
    """Knowing less about the better row cannot prove more."""
    if name in one:
        figure = one[name]
        wider = one | {name: Figure(figure.value, figure.low - 3, figure.high + 3)}
        assert dominates(one, other) or not dominates(wider, other)


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=10))
def test_exact_numbers_give_the_textbook_front(values: list[tuple[int, int, int]]) -> None:
    """Without uncertainty it is the usual definition."""
    table = {number: exact(*map(float, one)) for number, one in enumerate(values)}
    for number, others in dominating(table).items():
        own = values[number]
        usual = any(all(a >= b for a, b in zip(one, own, strict=True)) and one != own for one in values)
        assert bool(others) == usual


def test_overlapping_intervals_dominate_nobody() -> None:
    """Faster by value, but perhaps by chance; equal elsewhere."""
    fast = {"speed": Figure(10, 8, 12), "memory": Figure(1, 1, 1)}
    slow = {"speed": Figure(9, 7, 11), "memory": Figure(1, 1, 1)}
    assert not dominates(fast, slow)
    assert dominates(fast | {"speed": Figure(15, 13, 17)}, slow)


def test_an_unknown_number_neither_wins_nor_loses() -> None:
    """A row without quality is dominated by none, but it is undecided where it is worse in all that both have."""
    without, low, high = exact(5, 5), exact(4, 4, 1), exact(6, 6, 0)
    assert not dominates(without, low)
    assert not dominates(high, without)
    assert undecided({"without": without, "low": low}) == {"low"}
    assert undecided({"without": without, "high": high}) == {"without"}
    other_memory = {"speed": Figure(9, 9, 9), "memory of GPUs": Figure(1, 1, 1)}
    assert undecided({"here": {"speed": SLOW, "memory": SLOW}, "on a GPU": other_memory}) == set()


@given(rows, rows)
def test_the_same_numbers_are_never_less(one: dict[str, Figure], other: dict[str, Figure]) -> None:
    """Whatever is known of how certain they are."""
    same = {name: Figure(one[name].value, figure.low, figure.high) for name, figure in other.items() if name in one}
    assert not dominates({name: one[name] for name in same}, same)


def test_smaller_is_better_where_it_is_said() -> None:
    """Memory and divergence are turned round."""
    small = Figure.of(1.0, 0.9, 1.1, more_is_better=False)
    large = Figure.of(2.0, 1.9, 2.1, more_is_better=False)
    assert better(small, large)
    assert not better(large, small)


FAST = Figure(30, 29, 31)
SLOW = Figure(15, 14, 16)


@pytest.mark.parametrize(
    ("figure", "one", "other", "beaten"),
    [
        ("memory", alike_within(1001.0, 0.02), alike_within(1000.0, 0.02), True),  # a thousandth more
        ("memory", alike_within(1019.0, 0.02), alike_within(1000.0, 0.02), True),
        ("memory", alike_within(1021.0, 0.02), alike_within(1000.0, 0.02), False),
        ("quality", less(1.00e-4, 0.9e-4, 1.1e-4), less(0.99e-4, 0.9e-4, 1.1e-4), True),
        ("quality", less(0.5, 1e-4, 2.0), less(1e-3, 5e-4, 2e-3), False),  # its own wide interval is no excuse
        ("quality", less(1.5e-3, 1.4e-3, 1.6e-3), less(1e-3, 5e-4, 2e-3), False),  # the other's may be half of that
        ("quality", less(1.1e-4, math.nan, math.nan), less(1.0e-4, math.nan, math.nan), False),
    ],
)
def test_what_differs_less_than_can_be_told_decides_nothing(
    figure: str, one: Figure, other: Figure, beaten: bool
) -> None:
    """A row twice as fast beats the other unless it is worse by more than chance or the tolerance explains."""
    assert dominates({"speed": FAST, figure: one}, {"speed": SLOW, figure: other}) is beaten
    assert not dominates({"speed": SLOW, figure: other}, {"speed": FAST, figure: one})


def test_the_tolerance_has_no_gap() -> None:
    """Of two memories either one is better beyond the tolerance, or they are alike."""
    for more in (1000.0, 1010.0, 1019.9, 1020.1, 1100.0):
        small, large = alike_within(1000.0, 0.02), alike_within(more, 0.02)
        assert better(small, large) is not not_worse(large, small)


def test_a_circle_beats_nobody_in_it() -> None:
    """Each of three beats the next in one figure and is alike in the others; a fourth is beaten by all of them."""
    low, wide, high = Figure(21, 20, 22), Figure(24, 20, 28), Figure(25, 24, 26)
    circle = {
        "a": {"x": high, "y": wide, "z": low},
        "b": {"x": low, "y": high, "z": wide},
        "c": {"x": wide, "y": low, "z": high},
    }
    assert dominates(circle["a"], circle["b"])
    assert dominates(circle["b"], circle["c"])
    assert dominates(circle["c"], circle["a"])
    assert dominating(circle) == {"a": [], "b": [], "c": []}
    worst = dict.fromkeys("xyz", Figure(15, 14, 16))
    assert dominating(circle | {"d": worst})["d"] == ["a", "b", "c"]
