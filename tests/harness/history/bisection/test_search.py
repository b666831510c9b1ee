"""Probabilistic bisection: the right step by simulation, and what few or odd answers may not do."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.history.bisection.search import LEAST_ANSWERS, Found, judge, levels, posterior

VALUES = st.lists(st.floats(-10, 10), min_size=1, max_size=6)


def searched(steps: int, guilty: int, spread: float, dice: np.random.Generator, most: int) -> tuple[Found, int]:
    """How a search ends whose pairs have an s.d. of `spread` times the change, and after how many pairs."""
    answers: dict[int, list[float]] = {steps: []}
    for number in range(most):
        found = judge(steps, answers)
        if found.ask is None:
            return found, number
        answers.setdefault(found.ask, []).append((found.ask >= guilty) + float(dice.normal(0, spread)))
    return judge(steps, answers), most


@pytest.mark.parametrize(("steps", "median", "most"), [(8, 10, 24), (64, 14, 36)])
def test_the_right_step_is_named_within_few_pairs(steps: int, median: int, most: int) -> None:
    """Where the s.d. of a pair is a third of the change: right in 95 of 100, by simulation."""
    dice = np.random.default_rng(steps)
    ends = []
    for _ in range(120):
        guilty = int(dice.integers(1, steps + 1))
        found, pairs = searched(steps, guilty, 1 / 3, dice, most)
        ends.append((found.guilty == (guilty,), pairs))
    assert np.mean([right for right, _ in ends]) >= 0.95
    assert np.median([pairs for _, pairs in ends]) <= median


def test_what_is_named_in_much_noise_is_rarely_wrong() -> None:
    """An s.d. as large as the change: many searches end without a name, at most one name in ten is wrong."""
    dice = np.random.default_rng(7)
    named = wrong = 0
    for _ in range(80):
        guilty = int(dice.integers(1, 9))
        found, _ = searched(8, guilty, 1.0, dice, 30)
        named += found.named
        wrong += found.named and found.guilty != (guilty,)
    assert named > 20
    assert wrong <= 0.1 * named


def test_the_first_answers_are_of_the_ends() -> None:
    """No step is asked before the change and its noise are known."""
    assert judge(8, {8: [1.0] * (LEAST_ANSWERS - 1)}) == Found((), tuple(range(1, 9)), 8)
    assert judge(8, {8: [1.0, 1.1, 0.9, 1.0]}).ask == 4


def test_a_single_step_needs_no_question() -> None:
    """The only commit between both ends is the guilty one."""
    found = judge(1, {1: [1.0, 1.1, 0.9, 1.0]})
    assert (found.guilty, found.ask) == ((1,), None)


def test_steps_that_cannot_be_measured_are_not_asked() -> None:
    """What only they could tell apart stays together."""
    answers = {8: [1.0, 1.02, 0.98, 1.01], 3: [0.01, -0.02], 6: [1.0, 0.99]}
    left_out = (4, 5)
    found = judge(8, answers, left_out)
    assert found.ask is None
    assert found.guilty == (4, 5, 6)
    assert judge(8, answers).ask in left_out


@given(st.integers(1, 40), st.data())
def test_the_posterior_is_one(steps: int, data: st.DataObject) -> None:
    """It sums to one and is finite, whatever the answers are, also where they are all equal."""
    asked = data.draw(st.lists(st.integers(1, steps), max_size=5))
    answers = {step: data.draw(VALUES) for step in {*asked, steps}}
    chances = posterior(steps, answers)
    assert np.isfinite(chances).all()
    assert math.isclose(chances.sum(), 1.0, rel_tol=1e-9)


def test_without_an_answer_about_the_bad_version_nothing_is_known() -> None:
    """It is what the change is measured by."""
    with pytest.raises(ValueError, match="step 8 has no answer"):
        posterior(8, {3: [1.0]})


def test_levels_have_intervals_of_the_common_noise() -> None:
    """One answer has one as well; a step between both levels is remarked."""
    answers = {8: [1.0, 1.02, 0.98, 1.01], 4: [0.5, 0.51], 2: [0.01]}
    found = {one.step: one for one in levels(8, answers)}
    assert found[2].low < 0.01 < found[2].high
    assert found[2].high - found[2].low > found[8].high - found[8].low
    assert [step for step, one in found.items() if one.stray] == [4]
    (alone,) = levels(3, {3: [1.0]})
    assert math.isnan(alone.low)
