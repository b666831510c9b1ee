"""Plans as plain data, which reports show and `--json` prints."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from harness.capacity.assumptions import listed
from harness.capacity.cost import Unit, api_cost, break_even_rps
from harness.capacity.demand import PER_HOUR
from harness.capacity.measured import Candidate
from harness.capacity.missing import finer, surer
from harness.capacity.plan import Plan, Terms, in_flight_limit, scale_out_at
from harness.capacity.ranking import Ranking
from harness.capacity.requirements import Requirement
from harness.capacity.sensitivity import chances, nines, variations
from harness.prices.hours import MONTH_H
from harness.scenario.plan import Pricing

FORMAT = 1
LEAST_SAVED_USD = 0.5
NUMBERS = ("ttft_p50_ms", "ttft_p95_ms", "e2e_p50_ms", "e2e_p95_ms", "output_tokens_per_s")
"""Numbers of a tested rate."""
NOT_MODELLED = (
    "Balancers, network, storage, taxes and discounts: the cost is that of the machines alone.",
    "What replicas share: they are taken to be as fast together as one is alone.",
    "Arrivals that are burstier than the measured ones: the headroom is for them.",
    "Queues that a full bucket of five minutes leaves to the next one.",
    "Prefix caches: several replicas may find less in them than one did.",
    "Failures of replicas beyond the loss that is named, and their repair.",
)


def as_data(found: Ranking, given: frozenset[str] = frozenset()) -> dict[str, Any]:
    """Return {format, answer, demand, requirements, plans, excluded, otherwise, ...}; unknown numbers are None.

    Args:
        given: Keys of the assumptions that the user set.
    """
    best, terms = found.best, found.terms
    return {
        "format": FORMAT,
        "demand": _demand(terms),
        "chance": terms.assumed.chance,
        "plans": [_plan(one, terms) for one in found.plans],
        "excluded": [{**_named(one.candidate), "why": one.why, "command": one.command} for one in found.excluded],
        "quality_costs": _quality_costs(found),
        "assumptions": listed(terms.assumed, given),
        "not_modelled": [*NOT_MODELLED],
        **(NOTHING if best is None else _of_best(best, terms)),
    }


NOTHING: dict[str, Any] = {
    **dict.fromkeys(("requirements", "otherwise", "chances", "nines", "tested", "week", "missing", "caveats"), ()),
    "slo": {},
    "api": None,
}


def _of_best(best: Plan, terms: Terms) -> dict[str, Any]:
    """Return what is told of the cheapest plan alone."""
    sure = [(nine, None if one is None else asdict(one)) for nine, one in nines(best, terms)]
    return {
        "requirements": [_requirement(one) for one in best.point.requirements],
        "slo": dict(best.candidate.asks.get("slo", {})),
        "otherwise": [asdict(one) for one in variations(best, terms)],
        "chances": [asdict(one) for one in chances(best, terms)],
        "nines": [{"asked": nine, "replicas": None, **(one or {})} for nine, one in sure],
        "api": _api(best, terms),
        "tested": _tested(best.candidate),
        "week": _week(best, terms),
        "missing": [{"why": why, "command": command} for why, command in _missing(best, terms)],
        "caveats": [*_caveats(best)],
    }


def _caveats(best: Plan) -> Iterator[str]:
    """Yield what a reader of the cheapest plan should know of its measurement."""
    one = best.candidate
    seen, remote = len(one.manifest.provenance.must_match.gpus), one.keys[1].startswith("http")
    if not remote and seen != best.instance.gpus:
        has = f"{one.instance} has {best.instance.gpus}"
        yield f"{one.run} was measured on a machine with {_gpus(seen)}, and {has}."
    if not one.quality:
        yield f"The quality of {one.name} was not measured: add `quality` to the scenario."
    yield from _caveats_of_search(one.searched or {})
    yield from best.point.caveats


def _caveats_of_search(found: Mapping[str, Any]) -> Iterator[str]:
    """Yield what a search for the largest rate left open."""
    if found.get("ended") == "budget":
        yield "The search ended before the rate was known as well as asked for: set a longer `within`."
    if found.get("confirmed") == "unlikely":
        yield "The measurement at the rate to plan with missed the requirement, within chance."
    elif found and found.get("confirmed") is None:
        yield "The rate to plan with was not measured again."


def _gpus(number: int) -> str:
    """Return a number of GPUs in words."""
    return f"{number} GPU" if number == 1 else f"{number or 'no'} GPUs"


def _missing(best: Plan, terms: Terms) -> list[tuple[str, str]]:
    less = surer(best.candidate, best.chance, terms.assumed.chance)
    return [*([less] if less is not None else []), *finer(best.candidate, best.capacity)]


def _named(one: Candidate) -> dict[str, Any]:
    return {
        "name": one.name,
        "model": one.keys[0],
        "engine": one.keys[1],
        "level": one.keys[2],
        "variant": one.keys[3],
        "instance": one.instance,
        "run": one.run,
        "path": str(one.path),
        "quality": {name: _known(value) for name, value in one.quality.items()},
    }


def _plan(one: Plan, terms: Terms) -> dict[str, Any]:
    price = one.instance.price(terms.assumed.pricing)
    return _named(one.candidate) | {
        "load": one.capacity.load,
        "rate_rps": {
            "lower": one.capacity.lower_rps,
            "value": one.capacity.value_rps,
            "upper": one.capacity.upper_rps,
            "binding": one.capacity.binding,
        },
        "replicas": one.mix.total,
        "base": one.base,
        "spares": one.spares,
        "on_demand": one.mix.on_demand,
        "spot": one.mix.spot,
        "spot_spares": one.mix.spot_spares,
        "pool_lost_rps": _pool_lost(one, terms),
        "holds_rps": one.rule.holds(one.base),
        "chance": one.chance,
        "usd_per_month": one.usd_per_month,
        "usd_per_hour": {"on_demand": one.hourly_usd[0], "spot": one.hourly_usd[1]},
        "pricing": terms.assumed.pricing.value,
        "price_date": one.instance.date,
        "price_source": one.instance.source,
        "price_note": "" if price is None else price.note,
        "hardware": one.instance.hardware,
        "gpus": one.instance.gpus,
        "machine_hours": one.machine_hours,
        "perfect_machine_hours": one.perfect_hours,
        "gpu_hours": one.gpu_hours,
        "planned": _unit(one.planned),
        "full": _unit(one.full),
        "joules_per_output_token": one.point.joules_per_output_token,
        "prompt_tokens": one.point.tokens.prompt,
        "output_tokens": one.point.tokens.output,
        "start_s": one.candidate.start_s,
        "lead_s": one.lead_s,
        "admit_rps": one.capacity.lower_rps,
        "admit_in_flight": in_flight_limit(one.point),
        "scale_out_rps": scale_out_at(one, terms),
    }


def _unit(one: Unit) -> dict[str, float | None]:
    return {name: None if number is None else _known(number) for name, number in asdict(one).items()}


def _pool_lost(one: Plan, terms: Terms) -> float | None:
    """Return the demand that is held when a whole pool of spot machines is gone; None without spot machines."""
    if terms.assumed.pricing is not Pricing.SPOT:
        return None
    left = one.mix.total - math.ceil(one.mix.spot / terms.assumed.pools)
    return one.rule.holds(left) if left > 0 else 0.0


def _demand(terms: Terms) -> dict[str, Any]:
    demand, hours = terms.demand, terms.hours
    return {
        "source": demand.source,
        "peak_rps": terms.asked.peak_rps,
        "mean_rps": terms.asked.mean_rps,
        "growth": terms.assumed.growth,
        "varies": demand.varies,
        "notes": [*demand.notes],
        "scaling": terms.assumed.scaling.value,
        "hours": None if hours is None else hours.text,
        "hours_per_month": MONTH_H if hours is None else hours.share * MONTH_H,
        "outside_hours_share": None if hours is None else demand.outside(hours),
    }


def _requirement(one: Requirement) -> dict[str, Any]:
    return {
        "text": one.text,
        "metric": one.metric,
        "statistic": one.statistic,
        "op": one.op,
        "bound": one.bound,
        "unit": one.unit,
    }


def _searched(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the rates that a search tried, as `_tested` does."""
    rows = []
    for one in found.get("rates", ()):
        low, high = one.get("low"), one.get("high")
        share = found.get("share") or 0.95
        holds = low is not None and low >= share
        fails = one.get("overloaded") or (high is not None and high < share)
        unknown = dict.fromkeys(("chance", *NUMBERS))
        told = "no" if fails else "yes" if holds else "unknown"
        named = {"load": one.get("state", ""), "least_sure": found.get("requirement") or ""}
        rows.append({**named, "rate_rps": one["rate"], "holds": told, **unknown, "attainment": one.get("attainment")})
    return rows


def _tested(one: Candidate) -> list[dict[str, Any]]:
    if one.searched is not None:
        return _searched(one.searched)
    rows = []
    for point in one.points:
        told = point.tested()
        numbers = {name: _known(value) for name, value in point.numbers.items()}
        rows.append(
            {
                "load": point.load,
                "rate_rps": point.rate_rps,
                "holds": told.holds.value,
                "chance": told.chance,
                "least_sure": told.binding,
                **numbers,
            }
        )
    return rows


def _week(one: Plan, terms: Terms) -> list[dict[str, float]]:
    """Return the demand in the busiest bucket of each hour of a week, growth included, and what is held then."""
    asked = (terms.asked.planned * (1 + terms.assumed.growth)).reshape(-1, PER_HOUR)
    busiest = asked.argmax(axis=1)
    needs, replicas = ([*values[range(len(busiest)), busiest]] for values in (asked, one.week.reshape(-1, PER_HOUR)))
    return [
        {
            "hour": hour,
            "demand_rps": float(need),
            "replicas": int(have),
            "holds_rps": one.rule.holds(int(have)) * one.rule.growth if have else 0.0,
        }
        for hour, (need, have) in enumerate(zip(needs, replicas, strict=True))
    ]


def _quality_costs(found: Ranking) -> list[dict[str, Any]]:
    """Return for each plan of the same engine and machine as the best what its level costs beside the best's."""
    best = found.best
    if best is None:
        return []
    rows = []
    for one in found.plans[1:]:
        same = one.candidate.keys[:2] == best.candidate.keys[:2] and one.candidate.instance == best.candidate.instance
        cheaper = one.usd_per_month - best.usd_per_month > LEAST_SAVED_USD
        if same and cheaper and one.candidate.keys[2] != best.candidate.keys[2]:
            rows.append(
                {
                    "level": best.candidate.keys[2],
                    "instead_of": one.candidate.keys[2],
                    "saves_usd_per_month": one.usd_per_month - best.usd_per_month,
                    "quality": {name: _known(value) for name, value in best.candidate.quality.items()},
                }
            )
    return rows


def _api(best: Plan, terms: Terms) -> Mapping[str, Any] | None:
    price = terms.assumed.api_price
    each = None if price is None else api_cost(best.point.tokens, price)
    if price is None or each is None:
        return None
    mean = best.planned.requests_per_hour / 3600
    return {
        "usd_per_1m_input": price[0],
        "usd_per_1m_output": price[1],
        "usd_per_1k_requests": each * 1000,
        "usd_per_month": each * mean * 3600 * MONTH_H,
        "break_even_rps": break_even_rps(best.usd_per_month, each),
    }


def _known(number: float) -> float | None:
    return number if math.isfinite(number) else None
