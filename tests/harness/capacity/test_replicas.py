"""Replicas: what a rate needs, what failures need on top, spot machines, and scaling over a week."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from harness.capacity.demand import PER_WEEK
from harness.capacity.replicas import Mix, Rule, growth_within, over_week, spares, spot_mix, spot_spares
from harness.scenario.plan import Survives

rates = st.floats(0.01, 1000)
shares = st.floats(0.1, 1.0)
factors = st.floats(1.0, 2.0)


def test_the_rule_by_hand() -> None:
    """12 requests/s, 5 for each replica, 80 % of it planned with: 3; a tenth of imbalance makes it 4."""
    assert Rule(5.0, headroom=0.8).base(12.0) == 3
    assert Rule(5.0, headroom=0.8, imbalance=1.1).base(12.0) == 4
    assert Rule(5.0, headroom=0.8, growth=1.5).base(12.0) == 5
    assert Rule(0.1).base(0.3) == 3


def test_one_replica_has_no_imbalance() -> None:
    """All requests go to it."""
    assert Rule(5.0, imbalance=1.3).base(5.0) == 1
    assert Rule(5.0, imbalance=1.3).base(5.1) == 2


@given(rates, rates, shares, factors, factors, factors)
def test_more_demand_never_needs_fewer(
    demand: float, rate: float, headroom: float, imbalance: float, growth: float, more: float
) -> None:
    """Neither does less headroom used, a slower replica, or more growth."""
    base = Rule(rate, headroom, imbalance, growth).base(demand)
    assert Rule(rate, headroom, imbalance, growth).base(demand * more) >= base
    assert Rule(rate / more, headroom, imbalance, growth).base(demand) >= base
    assert Rule(rate, headroom / more, imbalance, growth).base(demand) >= base
    assert Rule(rate, headroom, imbalance * more, growth).base(demand) >= base


@given(rates, rates, shares, factors, factors)
def test_replicas_hold_what_they_were_planned_for(
    demand: float, rate: float, headroom: float, imbalance: float, growth: float
) -> None:
    """And one fewer would not."""
    rule = Rule(rate, headroom, imbalance, growth)
    base = rule.base(demand)
    assert rule.holds(base) >= demand * (1 - 1e-6)
    assert base == 1 or rule.holds(base - 1) < demand * (1 + 1e-6)


@given(st.integers(1, 200), st.integers(2, 6))
def test_a_loss_leaves_as_many_as_are_needed(base: int, zones: int) -> None:
    """N + 1 is exactly one more; each zone has the same number, and the others suffice without it."""
    assert spares(base, Survives.NOTHING, zones) == 0
    assert spares(base, Survives.REPLICA, zones) == 1
    total = base + spares(base, Survives.ZONE, zones)
    assert total % zones == 0
    assert total - total // zones >= base
    assert total - zones == 0 or (total - zones) * (zones - 1) / zones < base


@given(st.integers(1, 40), st.integers(0, 10), st.floats(0, 0.3), st.floats(0.05, 0.9))
def test_spot_machines_are_there_when_they_are_needed(needed: int, floor: int, missing: float, price: float) -> None:
    """The chance that more are gone than there are spares is at most 0.1 %, by the sum of the binomial."""
    mix = spot_mix(needed, floor, missing, 0.001, (1.0, price))
    assert mix.on_demand >= min(floor, needed)
    assert mix.total - mix.spot_spares == needed
    gone = sum(
        math.comb(mix.spot, lost) * missing**lost * (1 - missing) ** (mix.spot - lost)
        for lost in range(mix.spot_spares + 1, mix.spot + 1)
    )
    assert gone <= 0.001 + 1e-12


@given(st.integers(1, 30), st.integers(0, 10), st.floats(0, 0.3), st.floats(0.05, 1.2))
def test_more_replicas_on_spot_never_cost_less(needed: int, floor: int, missing: float, price: float) -> None:
    """Nor does a higher floor."""

    def cost(needed: int, floor: int) -> float:
        mix = spot_mix(needed, floor, missing, 0.001, (1.0, price))
        return mix.on_demand + mix.spot * price

    assert cost(needed + 1, floor) >= cost(needed, floor) - 1e-9
    assert cost(needed, floor + 1) >= cost(needed, floor) - 1e-9
    assert cost(needed, floor) <= needed


def test_spot_by_hand() -> None:
    """Ten machines, each gone one hour in a hundred: P[Bin(12, 0.01) > 2] is 0.02 %, P[Bin(11, 0.01) > 1] 0.5 %."""
    assert spot_spares(10, 0.01, 0.001) == 2
    assert spot_spares(10, 0.0, 0.001) == 0
    assert spot_spares(10, 1.0, 0.001) is None
    assert spot_mix(12, 2, 0.01, 0.001, (1.0, 0.3)) == Mix(2, 12, 2)
    assert spot_mix(12, 2, 1.0, 0.001, (1.0, 0.3)) == Mix(12)


def test_replicas_start_before_they_are_needed_and_stay_a_while() -> None:
    """One bucket needs three: they run from ten minutes before until fifteen after."""
    base = np.ones(PER_WEEK, dtype=np.int64)
    base[100] = 3
    found = over_week(base, lead_s=600, dwell_s=900)
    assert np.flatnonzero(found == 3).tolist() == list(range(98, 104))
    assert over_week(base, 0, 0).tolist() == base.tolist()
    base[0] = 3
    assert over_week(base, lead_s=300, dwell_s=0)[-1] == 3


def test_the_trigger_knows_how_fast_the_demand_grows() -> None:
    """It doubles within the time of a start, where another replica is needed; a fall does not count."""
    demand = np.array([1.0, 2.0, 2.0, 1.0] * (PER_WEEK // 4))
    base = np.array([1, 2, 2, 1] * (PER_WEEK // 4))
    assert growth_within(base, demand, lead_s=300) == 2.0
    assert growth_within(np.ones_like(base), demand, lead_s=300) == 1.0
    assert growth_within(base, demand, lead_s=0) == 1.0
