"""What a plan would be under other assumptions: each with its replicas, its cost, and where that is known from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from harness.capacity.cost import monthly
from harness.capacity.missing import measure_command
from harness.capacity.plan import Plan, Terms, plan, with_assumptions
from harness.capacity.replicas import spares
from harness.errors import UsageError
from harness.scenario.plan import Pricing, Survives

NINES = (0.9, 0.99, 0.999)
LAXER = 1.5
OTHER = 0.2


@dataclass(frozen=True, slots=True)
class Variation:
    """Plan with one thing changed.

    Attributes:
        what: Change, in words.
        note: What it rests on, where that is not measured, or what it loses.
        command: Command that measures it, "" if it is measured.
    """

    what: str
    replicas: int
    usd_per_month: float
    note: str = ""
    command: str = ""


def variations(found: Plan, terms: Terms) -> list[Variation]:
    """Return what the plan would be otherwise."""
    return [*_assumptions(found, terms), *_demands(found, terms), *_requirements(found, terms), *_prices(found, terms),
            *_lengths(found, terms)]  # fmt: skip


def _of(what: str, other: Plan, note: str = "", command: str = "") -> Variation:
    return Variation(what, other.mix.total, other.usd_per_month, note, command)


def _assumptions(found: Plan, terms: Terms) -> Iterator[Variation]:
    if terms.assumed.headroom < 1:
        other = plan(found.candidate, with_assumptions(terms, headroom=1.0), found.capacity)
        yield _of("without headroom", other, f"holds the peak with a chance of {_percent(other.chance)}")
    for survives in Survives:
        if survives is not terms.assumed.survive:
            loss = {"nothing": "without spares", "replica": "one replica lost", "zone": "one zone lost"}[survives.value]
            yield _of(loss, plan(found.candidate, with_assumptions(terms, survive=survives), found.capacity))


def _demands(found: Plan, terms: Terms) -> Iterator[Variation]:
    for share in (-OTHER, OTHER):
        scaled = replace(terms.demand, week=terms.demand.week * (1 + share), buckets=terms.demand.buckets * (1 + share))
        yield _of(f"{share:+.0%} demand", plan(found.candidate, replace(terms, demand=scaled), found.capacity))


def _requirements(found: Plan, terms: Terms) -> Iterator[Variation]:
    laxer = found.candidate.capacity_at(LAXER)
    if laxer is not None and laxer.lower_rps > found.capacity.lower_rps:
        note = f"{laxer.lower_rps:g} requests/s per replica"
        yield _of(f"requirements {LAXER:g} times as lax", plan(found.candidate, terms, laxer), note)


def _prices(found: Plan, terms: Terms) -> Iterator[Variation]:
    for pricing in Pricing:
        if pricing is terms.assumed.pricing or found.instance.price(pricing) is None:
            continue
        try:
            other = plan(found.candidate, with_assumptions(terms, pricing=pricing), found.capacity)
        except UsageError:  # spot without an interruption rate
            continue
        yield _of(f"paid {pricing.value}", other)


def _lengths(found: Plan, terms: Terms) -> Iterator[Variation]:
    """Yield longer and shorter replies: nobody measured them, so they rest on an assumption that is stated."""
    tokens = found.point.tokens.output
    if tokens is None:
        return
    for share in (-OTHER, OTHER):
        rates = [None if one is None else one / (1 + share) for one in _ends(found)]
        chances = tuple((rate / (1 + share), chance) for rate, chance in found.capacity.chances)
        scaled = replace(found.capacity, lower_rps=rates[0], value_rps=rates[1], upper_rps=rates[2], chances=chances)  # type: ignore[arg-type]
        command = measure_command(found.candidate, f"workload.output_tokens={tokens * (1 + share):.0f}")
        note = "if tokens/s stay the same"
        yield _of(f"{share:+.0%} output tokens", plan(found.candidate, terms, scaled), note, command)


def _ends(found: Plan) -> Sequence[float | None]:
    return found.capacity.lower_rps, found.capacity.value_rps, found.capacity.upper_rps


def _percent(chance: float) -> str:
    return "more than 99.9%" if chance > 0.999 else f"{chance:.1%}"


@dataclass(frozen=True, slots=True)
class Chance:
    """Replicas, spares included, and the chance that they hold the peak when the spares are gone."""

    replicas: int
    usd_per_month: float
    chance: float


def chances(found: Plan, terms: Terms) -> list[Chance]:
    """Return chance and cost of fewer and of more replicas, all of them running all the time."""
    first = max(1, min(found.draws.least(0.5), found.base) - 1)
    last = max(found.base + 2, *(found.draws.least(nine) for nine in NINES))
    numbers = range(first, min(last, first + 40) + 1)
    return [_chance(found, terms, base) for base in numbers]


def _chance(found: Plan, terms: Terms, base: int) -> Chance:
    total = base + spares(base, terms.assumed.survive, terms.assumed.zones)
    return Chance(total, monthly(total, found.hourly_usd[0]), found.draws.chance(base))


def nines(found: Plan, terms: Terms) -> list[tuple[float, Chance | None]]:
    """Return the fewest replicas for each chance, None where nothing measured is so sure."""
    each = [(nine, _chance(found, terms, found.draws.least(nine))) for nine in NINES]
    return [(nine, one if one.chance >= nine else None) for nine, one in each]
