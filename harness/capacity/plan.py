"""A plan for one candidate: how many replicas of its machine hold a demand, and what they cost."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from harness.analysis.stats import Floats, Ints
from harness.capacity.cost import HOUR_S, Unit, monthly, unit_costs
from harness.capacity.demand import BUCKET_S, Demand
from harness.capacity.measured import Candidate, Point
from harness.capacity.rate import Capacity
from harness.capacity.replicas import Mix, Rule, growth_within, over_week, spares, spot_mix
from harness.capacity.uncertainty import Draws
from harness.errors import UsageError
from harness.prices.catalogue import Catalogue, Instance, SpotPrice
from harness.prices.hours import MONTH_H, WEEK_H, WorkingHours
from harness.scenario.plan import Assumptions, Pricing, Scaling

START_UP_S = 300.0
"""Time to get and boot a machine where neither the prices nor the user state it."""
KEPT = (Pricing.RESERVED, Pricing.OWNED)
"""Paid for all the time, whether a replica runs or not."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What all plans of a command share."""

    demand: Demand
    assumed: Assumptions
    catalogue: Catalogue
    hours: WorkingHours | None = None

    @property
    def asked(self) -> Demand:
        """The demand that is served: all of it, or that of the working hours."""
        return self.demand if self.hours is None else self.demand.within(self.hours)


@dataclass(frozen=True, slots=True)
class Plan:
    """Replicas of one candidate, with their cost.

    Attributes:
        base: Replicas that the peak needs.
        spares: Replicas for the loss that the plan survives.
        mix: All replicas at the peak, by how they are paid for.
        week: Replicas in each bucket of a week.
        hourly_usd: Price of an hour of a machine, and of a spot machine.
        machine_hours, perfect_hours: Per month: those paid for, and of a perfect autoscaler.
        usd_per_month: For 730 hours.
        planned, full: Cost for each thing, at the demand and with each replica at its full rate.
        chance: Chance that the base alone holds the peak.
        lead_s: Time from asking for a replica until it serves.
    """

    candidate: Candidate
    capacity: Capacity
    point: Point
    instance: Instance
    rule: Rule
    base: int
    spares: int
    mix: Mix
    week: Ints
    hourly_usd: tuple[float, float]
    machine_hours: float
    perfect_hours: float
    usd_per_month: float
    planned: Unit
    full: Unit
    chance: float
    lead_s: float
    draws: Draws

    @property
    def gpu_hours(self) -> float:
        return self.machine_hours * self.instance.gpus


def plan(candidate: Candidate, terms: Terms, capacity: Capacity | None = None) -> Plan:
    """Return the plan of a candidate.

    Args:
        capacity: Rate of a replica; None: as measured.

    Raises ValueError if no tested rate holds, UsageError if the prices lack its machine.
    """
    known = capacity or candidate.capacity
    if known is None:
        raise ValueError("no tested rate holds its requirements beyond doubt")
    assumed, demand, instance = terms.assumed, terms.asked, terms.catalogue.find(candidate.instance)
    rule, draws = Rule.of(known.lower_rps, assumed), Draws.of(known, demand.peak_rps, assumed)
    base = _base(rule, draws, demand.peak_rps, assumed.chance)
    hourly, lead_s = _prices(candidate, terms), lead(candidate, instance, assumed)
    more = spares(base, assumed.survive, assumed.zones)
    mixed = _Mixer(rule, terms, instance, hourly, lead_s)
    week = _week(rule, draws, base, terms, lead_s)
    mixes = {int(one): mixed.of(int(one)) for one in set(week)}
    paid: Ints = np.full_like(week, week.max()) if assumed.pricing in KEPT else week
    usd_per_hour = _mean_usd(paid, mixes, hourly, terms, lead_s)
    machine_hours = float(np.mean([mixes[int(one)].total for one in paid])) * MONTH_H * _longer(terms, lead_s)
    point = candidate.point(known.load)
    served = float(demand.buckets.mean()) * (1 + assumed.growth) * _served_share(terms)
    return Plan(
        candidate, known, point, instance, rule, base, more, mixed.of(base), week, hourly, machine_hours,
        _perfect(known, demand, assumed) * MONTH_H, monthly(1.0, usd_per_hour),
        unit_costs(usd_per_hour, served, point.tokens), unit_costs(hourly[0], known.lower_rps, point.tokens),
        draws.chance(base), lead_s, draws,
    )  # fmt: skip


def _base(rule: Rule, draws: Draws, peak_rps: float, chance: float) -> int:
    """Return the replicas by the rule, or more where their chance to hold the peak is less than is asked for."""
    return max(rule.base(peak_rps), draws.least(chance))


def _prices(candidate: Candidate, terms: Terms) -> tuple[float, float]:
    """Return the price of an hour of a machine that is not interrupted, and of a spot machine."""
    pricing = terms.assumed.pricing
    if pricing is not Pricing.SPOT:
        return (terms.catalogue.hourly(candidate.instance, pricing),) * 2
    spot = terms.catalogue.hourly(candidate.instance, pricing)
    return terms.catalogue.hourly(candidate.instance, Pricing.ON_DEMAND), spot


def lead(candidate: Candidate, instance: Instance, assumed: Assumptions) -> float:
    """Return the time from asking for a replica until it serves: the machine's, then its engine's as measured."""
    machine = assumed.start_up_s if assumed.start_up_s is not None else instance.start_up_s
    return (START_UP_S if machine is None else machine) + (candidate.start_s or 0.0)


def interruptions(instance: Instance, assumed: Assumptions) -> float:
    """Return the chance of an interruption within an hour. Raises UsageError if nobody stated it."""
    spot = instance.price(Pricing.SPOT)
    stated = spot.interruptions_per_hour if isinstance(spot, SpotPrice) else None
    found = assumed.interruptions_per_hour if assumed.interruptions_per_hour is not None else stated
    if found is None:
        raise UsageError("the prices have no interruption rate of spot machines; add `--interruptions-per-hour 5%`")
    return found


@dataclass(frozen=True, slots=True)
class _Mixer:
    """How replicas of a plan are paid for."""

    rule: Rule
    terms: Terms
    instance: Instance
    hourly_usd: tuple[float, float]
    lead_s: float

    def of(self, base: int) -> Mix:
        """Return the mix of some replicas and their spares: spot machines above what the least demand needs."""
        assumed = self.terms.assumed
        needed = base + (spares(base, assumed.survive, assumed.zones) if base else 0)
        if assumed.pricing is not Pricing.SPOT or not needed:
            return Mix(needed)
        asked = self.terms.asked.planned
        floor = self.rule.base(float(asked[asked > 0].min()))
        missing = interruptions(self.instance, assumed) * self.lead_s / HOUR_S
        return spot_mix(needed, floor, missing, assumed.spot_risk, self.hourly_usd)


def _week(rule: Rule, draws: Draws, base: int, terms: Terms, lead_s: float) -> Ints:
    """Return the replicas without spares that run in each bucket of a week."""
    assumed, asked = terms.assumed, terms.asked
    if assumed.scaling is Scaling.AUTO:
        planned = asked.planned
        sure = draws.least_over(planned / asked.peak_rps, assumed.chance)
        by_rule = rule.base_over(planned)
        return over_week(np.maximum(by_rule, sure), lead_s, assumed.min_dwell_s)
    if terms.hours is None:
        return np.full(len(asked.week), base, dtype=np.int64)
    covered = [terms.hours.covers(number * BUCKET_S // 60) for number in range(len(asked.week))]
    found: Ints = np.where(covered, base, 0).astype(np.int64)
    return found


def _mean_usd(paid: Ints, mixes: dict[int, Mix], hourly: tuple[float, float], terms: Terms, lead_s: float) -> float:
    """Return the mean cost of an hour of a month."""
    cost = {one: mix.on_demand * hourly[0] + mix.spot * hourly[1] for one, mix in mixes.items()}
    return float(np.mean([cost[int(one)] for one in paid])) * _longer(terms, lead_s)


def _longer(terms: Terms, lead_s: float) -> float:
    """Return the factor by which working hours are paid for longer, since replicas start before them."""
    if terms.hours is None or terms.assumed.pricing in KEPT:
        return 1.0
    return 1 + len(terms.hours.days) * lead_s / HOUR_S / terms.hours.usual_hours


def _served_share(terms: Terms) -> float:
    """Return the share of all hours in which the buckets of the served demand lie."""
    return 1.0 if terms.hours is None else terms.hours.usual_hours / WEEK_H


def _perfect(capacity: Capacity, demand: Demand, assumed: Assumptions) -> float:
    """Return the mean number of machines of a perfect autoscaler.

    It has as many replicas as the demand of each bucket fills, at once, without headroom, imbalance or spares.
    """
    needed: Floats = np.ceil(demand.planned * (1 + assumed.growth) / capacity.lower_rps - 1e-9)
    return float(needed.mean())


def in_flight_limit(point: Point) -> int | None:
    """Return how many requests to admit to a replica at once; None if it was not measured.

    The mean in flight at the rate that it holds, and three of its square roots (Poisson) on top.
    """
    if not math.isfinite(point.in_flight):
        return None
    return max(1, math.ceil(point.in_flight + 3 * math.sqrt(point.in_flight)))


def scale_out_at(found: Plan, terms: Terms) -> float:
    """Return the rate per replica at which another one is to be started, so that it serves before it is needed."""
    asked = terms.asked.planned
    grows = growth_within(found.rule.base_over(asked), asked, found.lead_s)
    share = found.rule.imbalance if found.base > 1 else 1.0
    return found.capacity.lower_rps * found.rule.headroom / (share * grows)


def ranked(plans: Sequence[Plan]) -> list[Plan]:
    """Return plans by their cost; of equal ones the one with fewer replicas first."""
    return sorted(plans, key=lambda one: (one.usd_per_month, one.mix.total, one.candidate.name))


def with_assumptions(terms: Terms, **changes: object) -> Terms:
    """Return the terms with some assumptions changed."""
    return replace(terms, assumed=terms.assumed.model_copy(update=changes))
