"""The plan of a gate: pairs, their order, their seeds, and the looks."""

from __future__ import annotations

import re
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as some

from harness.comparison.rounds import BASE, HEAD, interleaved, starts
from harness.scenario.compare import Pairs, parse_pairs

SEEDS = some.integers(0, 2**32)
NUMBERS = some.integers(4, 24)


@given(NUMBERS, SEEDS)
def test_each_pair_has_both_sides_with_one_seed(pairs: int, seed: int) -> None:
    """And every pair another one."""
    made = [*starts(pairs, seed)]
    assert len(made) == 2 * pairs
    assert interleaved([start.side for start in made])
    by_pair = {pair: [start for start in made if start.pair == pair] for pair in range(1, pairs + 1)}
    assert all({start.side for start in own} == {BASE, HEAD} for own in by_pair.values())
    seeds = [{start.seed for start in own} for own in by_pair.values()]
    assert all(len(own) == 1 for own in seeds)
    assert len(set.union(*seeds)) == pairs


@given(NUMBERS, SEEDS)
def test_neighbouring_pairs_begin_with_the_other_side(pairs: int, seed: int) -> None:
    """ABBA or BAAB: what drifts steadily adds as much to either side."""
    first = [start.side for start in [*starts(pairs, seed)][::2]]
    assert all(first[i] != first[i + 1] for i in range(0, len(first) - 1, 2))


def test_which_side_begins_is_drawn() -> None:
    """About half of the gates begin with the baseline."""
    found = Counter(next(starts(4, seed)).side for seed in range(200))
    assert 70 < found[BASE] < 130


@given(NUMBERS, NUMBERS, SEEDS)
def test_more_pairs_go_on_where_fewer_end(some_pairs: int, more: int, seed: int) -> None:
    """So a gate can be continued."""
    assert [*starts(some_pairs + more, seed)][: 2 * some_pairs] == [*starts(some_pairs, seed)]


@pytest.mark.parametrize(
    ("text", "pairs", "looks"),
    [
        ("6", Pairs(6, 6), [6]),
        ("4..8", Pairs(4, 8), [4, 6, 8]),
        ("4 .. 7", Pairs(4, 7), [4, 6, 7]),
        ("5..5", Pairs(5, 5), [5]),
    ],
)
def test_pairs_are_read(text: str, pairs: Pairs, looks: list[int]) -> None:
    """One number, or the least and the greatest; the chance of a false word is shared by the looks."""
    found = parse_pairs(text)
    assert (found, found.looks, found.alpha * len(looks)) == (pairs, looks, pytest.approx(0.05))


@pytest.mark.parametrize(
    ("text", "fix"),
    [
        ("three", "write 6, or 4..8"),
        ("3", "3 pairs are too few for an interval; write 4 or more"),
        ("8..4", "write the smaller number first"),
        ("4..100", "at most 64 pairs"),
        ("4-8", "write 6, or 4..8"),
    ],
)
def test_a_number_of_pairs_that_is_none_is_told(text: str, fix: str) -> None:
    """With what to write instead."""
    with pytest.raises(ValueError, match=re.escape(fix)):
        parse_pairs(text)


@pytest.mark.parametrize(
    ("order", "pairs"), [("ABBA", True), ("ABAB", True), ("AABB", False), ("AAAABBBB", False), ("ABBAA", False)]
)
def test_blocks_of_one_side_are_no_pairs(order: str, pairs: bool) -> None:
    """Every two neighbours must be one of each."""
    assert interleaved([{"A": BASE, "B": HEAD}[side] for side in order]) is pairs
