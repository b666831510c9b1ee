"""Candidates side by side: the plan of each that holds the demand, and why each other one has none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.capacity.measured import Candidate, check_alike
from harness.capacity.missing import no_rate_holds, other_lengths
from harness.capacity.plan import Plan, Terms, plan, ranked


@dataclass(frozen=True, slots=True)
class Excluded:
    """Candidate without a plan: why, and the command that measures what is missing; "" if no measurement helps."""

    candidate: Candidate
    why: str
    command: str = ""


@dataclass(frozen=True, slots=True)
class Ranking:
    """Plans by their cost, the cheapest first."""

    terms: Terms
    plans: tuple[Plan, ...]
    excluded: tuple[Excluded, ...]

    @property
    def best(self) -> Plan | None:
        return self.plans[0] if self.plans else None


def rank(candidates: Sequence[Candidate], terms: Terms) -> Ranking:
    """Return the plans of candidates. Raises UsageError if they are not alike, or a machine is not in the prices."""
    check_alike(candidates)
    plans, excluded = [], []
    for one in candidates:
        terms.catalogue.find(one.instance)
        if (why := _excluded(one, terms)) is not None:
            excluded.append(why)
        else:
            plans.append(plan(one, terms))
    return Ranking(terms, tuple(ranked(plans)), tuple(excluded))


def _excluded(one: Candidate, terms: Terms) -> Excluded | None:
    if one.quality_fails:
        return Excluded(one, f"quality: {one.quality_fails[0]}")
    if (lengths := other_lengths(one, terms.assumed)) is not None:
        return Excluded(one, *lengths)
    return Excluded(one, *no_rate_holds(one)) if one.capacity is None else None
