"""The race: who is left, who is out and how far behind, and when it ends."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some

from harness.tuning.race import Rounds, standing

ROUNDS = Rounds(2, 4)
MARGIN = math.log(1.03)
NOISE = (0.01, -0.01, 0.005, -0.005)


def raced(*means: float, rounds: int = 2) -> dict[int, list[float]]:
    """Gains of candidates with these means, each with noise of its own."""
    shifts = [NOISE[number % 4 :] + NOISE[: number % 4] for number in range(len(means))]
    return {
        number: [mean + one for one in shift[:rounds]]
        for number, (mean, shift) in enumerate(zip(means, shifts, strict=True))
    }


def test_a_candidate_that_is_surely_worse_is_out() -> None:
    """The others stay, the best first; its distance from the best has an interval."""
    state = standing(raced(0.0, -3.0, 0.02), ROUNDS, 1e-6)
    assert (state.left, state.rounds, state.ended) == ((2, 0), 2, "")
    behind = state.behind[1]
    assert behind.best == 2
    assert 0 < behind.low < behind.at < behind.high
    assert behind.at == pytest.approx(3.02, abs=0.05)


def test_what_cannot_be_told_from_the_best_stays() -> None:
    """However often it looked worse, if the noise explains it."""
    assert set(standing(raced(0.0, -0.01, 0.005, rounds=4), ROUNDS, 1e-6).left) == {0, 1, 2}


def test_nothing_is_judged_before_the_least_number_of_rounds() -> None:
    """One start says nothing of its noise."""
    state = standing({0: [0.0], 1: [-9.0]}, ROUNDS, MARGIN)
    assert (state.left, state.rounds, state.behind, state.ended) == ((0, 1), 1, {}, "")
    assert standing({0: [], 1: []}, ROUNDS, MARGIN).rounds == 0


def test_a_race_ends_when_those_that_are_left_differ_by_less_than_the_margin() -> None:
    """More rounds could gain nothing that counts."""
    gains = {0: [0.0, 0.0001, 0.0, 0.0001], 1: [0.0001, 0.0, 0.0001, 0.0], 2: [0.0] * 4}
    state = standing({one: values[:3] for one, values in gains.items()}, ROUNDS, MARGIN)
    assert (state.settled, state.ended) == (True, "those that are left differ by less than the margin")


def test_a_race_ends_with_its_last_round_or_its_last_candidate() -> None:
    """What was decided at an earlier look stays decided, without further rounds of the loser."""
    assert standing(raced(0.0, -0.01, 0.005, rounds=4), ROUNDS, 1e-6).ended == "all rounds are measured"
    gains = raced(0.0, -3.0, 0.5, rounds=4)
    gains[1] = gains[1][:2]
    state = standing(gains, ROUNDS, 1e-6)
    assert (state.left, state.ended) == ((2,), "one is left")
    assert state.behind[0].best == 2
    assert standing({0: []}, ROUNDS, MARGIN).ended == "one is left"
    assert standing({}, ROUNDS, MARGIN).ended == "none is left"


def test_a_round_that_all_share_costs_no_certainty() -> None:
    """A machine that is slow in one round slows all candidates in it."""
    gains = raced(0.0, -0.5, 0.02, rounds=3)
    slowed = {one: [values[0], values[1] - 2.0, values[2]] for one, values in gains.items()}
    assert standing(slowed, ROUNDS, 1e-6).left == standing(gains, ROUNDS, 1e-6).left


@given(some.integers(2, 6), some.integers(0, 4), some.integers(0, 1000))
def test_any_race_keeps_its_best_and_says_how_far_the_others_are_behind(count: int, rounds: int, seed: int) -> None:
    """Of any noise; intervals hold their value."""
    table = np.random.default_rng(seed).normal(0, 0.1, (count, rounds))
    state = standing(dict(enumerate(table.tolist())), ROUNDS, MARGIN)
    assert state.left
    assert set(state.left) <= set(range(count))
    for one, behind in state.behind.items():
        assert behind.low <= behind.at <= behind.high
        assert (one in state.left) or behind.low > 0
