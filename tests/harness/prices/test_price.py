"""Price of the machine under test: known where the scenario names it, asked for only where costs are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness.errors import UsageError
from harness.prices.price import asked_price_of, known_price_of, price_of
from harness.scenario.model import Scenario

OWN = """\
instances:
  box: {date: 2026-11-30, source: our contract, on_demand: {usd_per_hour: 2}, spot: {usd_per_hour: 1}}
"""


def scenario_of(**keys: Any) -> Scenario:
    """The least scenario with these keys."""
    least = {"engines": [{"engine": "simulated"}], "load": [{"kind": "single_user", "requests": 1}]}
    return Scenario.model_validate(least | keys)


def test_the_price_is_that_of_the_catalogue_with_its_day() -> None:
    """Without an instance there is none; one that the catalogue lacks has none that is known."""
    found = price_of(scenario_of(instance="g5.xlarge"))
    assert found is not None
    assert found.text == "g5.xlarge at $1.006 an hour (on demand, as of 2026-11)"
    assert price_of(scenario_of()) is None
    assert known_price_of(scenario_of(instance="g5.xlrge")) is None
    with pytest.raises(UsageError, match=r"no instance 'g5\.xlrge' in the shipped prices; did you mean"):
        price_of(scenario_of(instance="g5.xlrge"))


def test_the_plan_of_a_scenario_says_where_prices_are_and_how_an_hour_is_paid(tmp_path: Path) -> None:
    """A machine of one's own, as a spot machine."""
    (tmp_path / "own.yaml").write_text(OWN)
    plan = {"prices": str(tmp_path / "own.yaml"), "pricing": "spot"}
    found = price_of(scenario_of(instance="box", plan=plan))
    assert found is not None
    assert (found.usd_per_hour, found.pricing, found.source) == (1.0, "spot", "our contract")
    with pytest.raises(UsageError, match="box has no reserved price, only on_demand, spot"):
        price_of(scenario_of(instance="box", plan={**plan, "pricing": "reserved"}))


@pytest.mark.parametrize(
    "keys",
    [
        {"budget": {"usd": 5}},
        {"limits": ["cost_per_1m_output_tokens_usd <= 2"]},
        {"columns": ["ttft", "cost_per_1k_requests_usd"]},
        {"load": [{"kind": "single_user", "requests": 1, "limits": ["cost_per_1m_output_tokens_usd <= 2"]}]},
    ],
)
def test_a_machine_without_a_price_is_an_error_where_costs_are_asked_for(keys: dict[str, Any]) -> None:
    """Elsewhere it is the user's name of a machine, and nothing more."""
    assert asked_price_of(scenario_of(instance="mine")) is None
    with pytest.raises(UsageError, match="no instance 'mine' in the shipped prices"):
        asked_price_of(scenario_of(instance="mine", **keys))
