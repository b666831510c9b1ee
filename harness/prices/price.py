"""Price of an hour of the machine under test, and of a plan on it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import UsageError
from harness.metrics import COSTS
from harness.prices.catalogue import read_catalogue
from harness.scenario.checks import loads_by_key
from harness.scenario.plan import Plan
from harness.store.manifest import Price

if TYPE_CHECKING:
    from harness.scenario.model import Scenario


def price_of(scenario: Scenario) -> Price | None:
    """Return the price of the scenario's `instance`, paid as its `plan` says; None without an `instance`.

    Raises UsageError for a machine that the catalogue lacks, ScenarioError for a wrong file of prices.
    """
    if scenario.instance is None:
        return None
    plan = scenario.plan or Plan()
    catalogue = read_catalogue(None if plan.prices is None else Path(plan.prices))
    found, hourly = catalogue.find(scenario.instance), catalogue.hourly(scenario.instance, plan.pricing)
    return Price(
        instance=scenario.instance,
        pricing=plan.pricing.value,
        usd_per_hour=hourly,
        date=found.date,
        source=found.source,
    )


def asked_price_of(scenario: Scenario) -> Price | None:
    """Return the price where the budget, a limit or a column asks for costs; else None. Raises as `price_of`."""
    texts = [
        *scenario.limits,
        *(text for load in loads_by_key(scenario).values() for text in load.limits),
        *(scenario.columns or ()),
    ]
    asked = scenario.budget.usd is not None or any(metric in text for metric in COSTS for text in texts)
    return price_of(scenario) if asked else None


def known_price_of(scenario: Scenario) -> Price | None:
    """Return the price of the scenario's `instance`; None where it is not known."""
    try:
        return price_of(scenario)
    except UsageError:
        return None
