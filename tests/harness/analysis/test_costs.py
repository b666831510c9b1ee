"""Cost from a rate and the price of an hour: by hand, at both ends of its interval, and only of the whole load."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.analysis.columns import ALL
from harness.analysis.costs import with_costs
from harness.store.manifest import Price

AN_HOUR = Price(instance="a100-40gb", pricing="on_demand", usd_per_hour=4.10, date="2026-11", source="published")


def row_of(metric: str, value: float, low: float = math.nan, high: float = math.nan, **keys: Any) -> dict[str, Any]:
    """A row of a summary."""
    return {"class": ALL, "metric": metric, "statistic": "value", "bound": "point"} | {
        "value": value, "low": low, "high": high, "unit": "1/s", "source": "monotonic"
    } | keys  # fmt: skip


def test_published_costs_by_hand() -> None:
    """23,040 requests an hour at $4.10 are $0.178 per 1,000; 1,000 tokens/s are $1.139 per million."""
    rows = [row_of("goodput_rps", 6.4, 5.0, 8.0), row_of("output_tokens_per_s", 1000.0)]
    _, requests, _, tokens = with_costs(rows, AN_HOUR)
    assert requests["metric"] == "cost_per_1k_requests_usd"
    assert requests["value"] == pytest.approx(0.178, abs=5e-4)
    assert (requests["low"], requests["high"]) == (pytest.approx(4.1 / 28.8), pytest.approx(4.1 / 18.0))
    assert (requests["unit"], requests["source"]) == ("USD", "a100-40gb at $4.1 an hour (on demand, as of 2026-11)")
    assert tokens["value"] == pytest.approx(1.1389, abs=1e-4)


def test_no_cost_without_a_price_a_rate_or_the_whole_load() -> None:
    """A class has no machine of its own, and no request has no finite cost."""
    rows = [row_of("goodput_rps", 6.4)]
    assert [*with_costs(rows, None)] == rows
    for one in (row_of("goodput_rps", 0.0), row_of("goodput_rps", 6.4, **{"class": "chat"}), row_of("ttft_ms", 6.4)):
        assert [*with_costs([one], AN_HOUR)] == [one]


def test_the_least_rate_is_the_greatest_cost() -> None:
    """Tokens that are at least so many cost at most so much."""
    _, cost = with_costs([row_of("output_tokens_per_s", math.nan, 500.0, math.inf, bound="lower")], AN_HOUR)
    assert math.isnan(cost["value"])
    assert (cost["bound"], cost["high"]) == ("upper", pytest.approx(4.10 / 1.8))


@given(st.floats(0.01, 1e4), st.floats(0.01, 1e3), st.floats(1.1, 10.0))
def test_cost_scales_with_the_price_and_falls_with_the_rate(rate: float, price: float, factor: float) -> None:
    """Twice the price is twice the cost; twice the rate is half of it."""

    def cost(rate: float, price: float) -> float:
        hour = AN_HOUR.model_copy(update={"usd_per_hour": price})
        return float([*with_costs([row_of("goodput_rps", rate)], hour)][1]["value"])

    assert cost(rate, factor * price) == pytest.approx(factor * cost(rate, price))
    assert cost(factor * rate, price) == pytest.approx(cost(rate, price) / factor)
