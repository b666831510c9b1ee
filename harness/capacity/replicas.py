"""Replicas for a demand: what the rate needs, what failures need on top, spot machines, and scaling over a week."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from harness.analysis.stats import Floats, Ints
from harness.capacity.demand import BUCKET_S, PER_WEEK
from harness.scenario.plan import Assumptions, Survives

ROUNDING = 1e-9
"""A quotient this little above a whole number is that number: 0.3 / 0.1 needs three replicas."""


@dataclass(frozen=True, slots=True)
class Rule:
    """How many replicas a rate needs.

    Attributes:
        rate_rps: Rate that one replica holds.
        headroom: Part of it that is planned with.
        imbalance: Rate of the busiest of several replicas / mean rate of all.
        growth: Factor on the demand.
    """

    rate_rps: float
    headroom: float = 1.0
    imbalance: float = 1.0
    growth: float = 1.0

    @classmethod
    def of(cls, rate_rps: float, assumed: Assumptions) -> Rule:
        """Return the rule of a plan's assumptions."""
        return cls(rate_rps, assumed.headroom, assumed.imbalance, 1 + assumed.growth)

    def base(self, demand_rps: float) -> int:
        """Return the replicas that a rate needs, at least one: demand * imbalance * growth / (rate * headroom)."""
        return int(self.base_over(np.array([demand_rps]))[0])

    def base_over(self, demand_rps: Floats) -> Ints:
        """Return the replicas that each of several rates needs. A single replica has no imbalance."""
        alone = demand_rps * self.growth / (self.rate_rps * self.headroom)
        spread = np.maximum(2.0, np.ceil(alone * self.imbalance - ROUNDING))
        found: Ints = np.where(alone <= 1 + ROUNDING, 1.0, spread).astype(np.int64)
        return found

    def holds(self, replicas: int) -> float:
        """Return the demand, before growth, that some replicas hold within the headroom."""
        share = self.imbalance if replicas > 1 else 1.0
        return replicas * self.rate_rps * self.headroom / (share * self.growth)


def spares(base: int, survives: Survives, zones: int) -> int:
    """Return the replicas beside `base` with which a loss leaves as many as are needed.

    One for the loss of a replica. For that of a zone, base / (zones - 1) replicas, rounded up, stand in each.
    """
    if survives is Survives.NOTHING:
        return 0
    if survives is Survives.REPLICA:
        return 1
    return zones * math.ceil(base / (zones - 1)) - base


@dataclass(frozen=True, slots=True)
class Mix:
    """Replicas by how they are paid for.

    Attributes:
        on_demand: On demand, reserved or owned: not interrupted.
        spot: Spot machines, those that replace interrupted ones included.
        spot_spares: Spot machines beside those that are needed.
    """

    on_demand: int
    spot: int = 0
    spot_spares: int = 0

    @property
    def total(self) -> int:
        return self.on_demand + self.spot


def spot_mix(needed: int, floor: int, missing: float, risk: float, hourly_usd: tuple[float, float]) -> Mix:
    """Return the cheapest mix of which `needed` replicas are there at a random moment, but for a chance of `risk`.

    Args:
        floor: Replicas that must not be interrupted; more of them may be cheaper than spare spot machines.
        missing: Chance that a spot machine is gone: interruptions per hour * hours until it is replaced.
        risk: Accepted chance that more are gone than there are spares, P[Bin(spot, missing) > spares].
        hourly_usd: Price of an hour of a machine that is not interrupted, and of a spot machine.
    """
    cheapest, least = Mix(needed), needed * hourly_usd[0]
    for kept in range(min(floor, needed), needed):
        more = spot_spares(needed - kept, missing, risk)
        if more is None:
            continue
        mix = Mix(kept, needed - kept + more, more)
        cost = mix.on_demand * hourly_usd[0] + mix.spot * hourly_usd[1]
        if cost < least:
            cheapest, least = mix, cost
    return cheapest


def spot_spares(wanted: int, missing: float, risk: float) -> int | None:
    """Return the least number of spot machines beside `wanted`; None if four times as many are not enough."""
    from scipy.special import bdtrc

    for more in range(3 * wanted + 20):
        if missing <= 0 or bdtrc(more, wanted + more, min(1.0, missing)) <= risk:
            return more
    return None


def over_week(base: Ints, lead_s: float, dwell_s: float) -> Ints:
    """Return the replicas that run in each bucket of a week, started early enough and kept long enough.

    Args:
        base: Replicas that each bucket needs.
        lead_s: Time from asking for a replica until it serves: it is paid for from then on.
        dwell_s: Least time that a replica is kept.
    """
    lead, dwell = (math.ceil(seconds / BUCKET_S - ROUNDING) for seconds in (lead_s, dwell_s))
    reach = min(PER_WEEK, lead + dwell + 1)
    found = base.copy()
    for step in range(reach):
        found = np.maximum(found, np.roll(base, dwell - step))
    return found


def growth_within(base: Ints, demand: Floats, lead_s: float) -> float:
    """Return the largest factor by which the demand grows while a replica starts, where more of them are needed."""
    lead = math.ceil(lead_s / BUCKET_S - ROUNDING)
    if lead == 0:
        return 1.0
    later = np.max([np.roll(demand, -step) for step in range(1, lead + 1)], axis=0)
    needed = np.max([np.roll(base, -step) for step in range(1, lead + 1)], axis=0)
    grows = (needed > base) & (demand > 0)
    return float(max(1.0, (later[grows] / demand[grows]).max())) if grows.any() else 1.0
