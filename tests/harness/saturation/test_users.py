"""The largest number of users within the SLO: what is sure, what is not, and where in between."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.saturation.users import Tried, users_within_slo


def at(users: int, attainment: float, width: float = 0.02) -> Tried:
    """A number of users tried."""
    return Tried(users, attainment, max(0.0, attainment - width / 2), min(1.0, attainment + width / 2))


def test_the_largest_number_lies_between_two_that_were_tried() -> None:
    """8 users surely meet the SLO, 16 surely miss it; by the odds 95 % would do so at 10."""
    found = users_within_slo([at(16, 0.5), at(4, 1.0), at(8, 0.98)])
    assert (found.meets, found.misses, found.unsure) == (8, 16, ())
    assert found.value == pytest.approx(8 + 8 * (3.8918 - 2.9444) / 3.8918, rel=1e-3)


def test_a_number_whose_interval_holds_the_share_is_not_sure() -> None:
    """It neither meets nor misses."""
    found = users_within_slo([at(4, 0.99), at(8, 0.955), at(12, 0.945), at(16, 0.5)])
    assert (found.meets, found.misses, found.unsure) == (4, 16, (8, 12))
    assert 8 < found.value < 12


def test_without_a_miss_there_is_no_upper_end() -> None:
    """At least so many."""
    found = users_within_slo([at(4, 0.99), at(8, 0.99)])
    assert (found.meets, found.misses, found.unsure) == (8, None, ())
    assert math.isnan(found.value)


def test_a_number_beyond_one_that_misses_does_not_count() -> None:
    """16 users that meet it by chance, or by a cache, are no evidence for more."""
    found = users_within_slo([at(4, 0.99), at(8, 0.5), at(16, 0.99)])
    assert (found.meets, found.misses) == (4, 8)


def test_nothing_may_meet_it() -> None:
    """Not even one user."""
    found = users_within_slo([at(1, 0.5), at(2, 0.2)])
    assert (found.meets, found.misses, found.unsure) == (None, 1, ())
    assert users_within_slo([]).meets is None


@given(st.lists(st.tuples(st.integers(1, 99), st.floats(0, 1)), min_size=1, unique_by=lambda one: one[0]))
def test_the_ends_are_in_order(tried: list[tuple[int, float]]) -> None:
    """Whatever was measured: what meets lies below what misses, and what is not sure between them."""
    found = users_within_slo([at(*one) for one in tried])
    ends = [found.meets or 0, *found.unsure, found.misses or 100]
    assert ends == sorted(ends)


def test_the_truth_lies_between_the_ends() -> None:
    """In at least 90 % of simulated sweeps of 200 requests each: misses grow with users, and 9 users are the truth."""
    users = np.array([1, 2, 4, 6, 8, 12, 16, 24])
    truth = 1 / (1 + np.exp(-np.log(19) + 1.1 * (users - 9.0)))
    rng, right = np.random.default_rng(5), 0
    for _ in range(200):
        good = rng.binomial(200, truth)
        share = (good + 2) / 204
        half = 1.96 * np.sqrt(share * (1 - share) / 204)
        tried = [
            Tried(*one)
            for one in zip(users.tolist(), good / 200, share - half, np.minimum(share + half, 1), strict=True)
        ]
        found = users_within_slo(tried)
        right += (found.meets or 0) <= 9 <= (found.misses or 99)
    assert right >= 180
