"""The rate that a replica holds: from tested rates, bounded by the lowest that fails, with draws of what is between."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.capacity.rate import Capacity, Holds, Tried, capacity_of, chances_of

YES, NO, UNKNOWN = Holds.YES, Holds.NO, Holds.UNKNOWN


def tried(*rates: tuple[float, Holds, float]) -> list[Tried]:
    """Rates with whether they hold and the chance that they do."""
    return [Tried(f"rate-{rate:g}", rate, holds, chance, "ttft_ms p95 <= 500") for rate, holds, chance in rates]


def test_the_highest_rate_that_holds_below_the_lowest_that_fails() -> None:
    """In any order; the one between, of which nothing is sure, is neither."""
    found = capacity_of(tried((4, NO, 0.0), (2, YES, 0.999), (3, UNKNOWN, 0.6), (1, YES, 1.0)), "r")
    assert found is not None
    assert (found.lower_rps, found.value_rps, found.upper_rps) == (2, 2, 4)
    assert (found.binding, found.load, found.source_run, found.users_or_rate) == (
        "ttft_ms p95 <= 500", "rate-2", "r", "rate",
    )  # fmt: skip
    assert found.is_bounded


def test_a_rate_that_likely_holds_is_the_value_between_both_ends() -> None:
    """Its value meets the requirement, its interval does not."""
    likely = Tried("rate-3", 3.0, UNKNOWN, 0.8, likely=True)
    found = capacity_of([*tried((2, YES, 1.0), (4, NO, 0.0)), likely], "r")
    assert found is not None
    assert (found.lower_rps, found.value_rps, found.upper_rps) == (2, 3, 4)


def test_a_single_rate_that_holds_is_a_lower_bound() -> None:
    """At least this much; nothing is said of more."""
    found = capacity_of(tried((2, YES, 1.0)), "r")
    assert found is not None
    assert (found.lower_rps, found.upper_rps, found.binding) == (2, None, "")
    assert set(found.draws(100, np.random.default_rng(1))) == {2.0}


def test_a_rate_that_holds_above_one_that_fails_does_not_count() -> None:
    """The system is not understood there."""
    found = capacity_of(tried((1, YES, 1.0), (2, NO, 0.0), (3, YES, 1.0)), "r")
    assert found is not None
    assert (found.lower_rps, found.upper_rps) == (1, 2)


def test_a_higher_rate_that_holds_vouches_for_lower_ones() -> None:
    """Few requests at 2 requests/s leave its interval wide; 4 hold beyond doubt. Above that, no rate vouches."""
    found = capacity_of(
        tried((2, UNKNOWN, 0.9), (4, YES, 0.999), (6, UNKNOWN, 0.2), (7, UNKNOWN, 0.4), (8, NO, 0)), "r"
    )
    assert found is not None
    assert found.chances == ((2, 0.999), (4, 0.999), (6, 0.2), (7, 0.2), (8, 0))


@pytest.mark.parametrize("rates", [[(2, NO, 0.0)], [(2, UNKNOWN, 0.5)], [(1, NO, 0.0), (2, YES, 1.0)]])
def test_nothing_is_known_without_a_rate_that_holds(rates: list[tuple[float, Holds, float]]) -> None:
    """So there is no capacity, and no number stands for it."""
    assert capacity_of(tried(*rates), "r") is None


def test_draws_have_the_chances_of_the_tested_rates() -> None:
    """As many hold each rate as its chance says, none more than the highest, and of others nothing is known."""
    known = Capacity(2.0, 3.0, 4.0, "", "rate", "r", "l", ((2.0, 0.99), (3.0, 0.6), (4.0, 0.1)))
    drawn = known.draws(200_000, np.random.default_rng(1))
    for rate, chance in known.chances:
        assert (drawn >= rate - 1e-9).mean() == pytest.approx(chance, abs=0.005)
    assert drawn.max() == 4.0
    assert (drawn == 0).mean() == pytest.approx(0.01, abs=0.002)
    assert drawn[drawn > 0].min() >= 2.0
    assert np.median(drawn) == pytest.approx(3.0 + 0.1 / 0.5, abs=0.01)


def test_an_interval_alone_gives_its_own_chances() -> None:
    """90 % of the draws lie within an interval of 90 %, half below its median, and few far below its lower end."""
    known = Capacity(2.0, 3.0, 4.0, "", "rate", "r", "l")
    drawn = known.draws(100_000, np.random.default_rng(1))
    assert ((drawn >= 2.0) & (drawn < 4.0 - 1e-9)).mean() == pytest.approx(0.9, abs=0.01)
    assert (drawn < 3.0).mean() == pytest.approx(0.5, abs=0.01)
    assert (drawn < 1.2).mean() < 0.001


def test_a_search_that_found_no_upper_end_is_a_lower_bound() -> None:
    """Its one end has its chance, and nothing is drawn above it."""
    assert chances_of(2.0, 2.0, None, tail=0.1) == ((2.0, 0.9),)
    rates = [rate for rate, _ in chances_of(13.0, 14.0, 14.8, tail=0.1)]
    assert rates == sorted(rates)
    assert min(abs(rate - 13.0) for rate in rates) < 1e-9


chances = st.lists(st.floats(0, 1), min_size=1, max_size=6)


@given(chances, st.floats(0, 1))
def test_less_chance_never_draws_a_higher_rate(own: list[float], less: float) -> None:
    """Draw by draw, with the same seed: a stricter requirement is never drawn to hold more."""

    def drawn(factor: float) -> np.ndarray:
        points = tried(*((rate, YES, chance * factor) for rate, chance in enumerate(own, 1)))
        known = capacity_of(points, "r")
        assert known is not None
        return known.draws(200, np.random.default_rng(3))

    assert (drawn(less) <= drawn(1.0) + 1e-6).all()
