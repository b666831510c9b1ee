"""Costs: the arithmetic by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.capacity.cost import Tokens, api_cost, break_even_rps, monthly, unit_costs


@pytest.mark.parametrize(
    ("usd_per_hour", "requests_per_hour", "per_1k"), [(4.10, 23_040, "0.178"), (1.536, 2_880, "0.533")]
)
def test_thousand_requests_cost_what_a_published_table_says(
    usd_per_hour: float, requests_per_hour: float, per_1k: str
) -> None:
    """An A100 at $4.10 and 23,040 requests an hour; 32 cores at $1.536 and 2,880."""
    found = unit_costs(usd_per_hour, requests_per_hour / 3600, Tokens())
    assert f"{found.per_1k_requests_usd:.3f}" == per_1k
    assert (found.per_1m_input_usd, found.per_1m_output_usd, found.tokens_per_usd) == (None, None, None)


def test_four_machines_for_a_month() -> None:
    """4 * 1.006 * 730 h."""
    assert f"{monthly(4, 1.006):,.0f}" == "2,938"


def test_tokens_of_a_request_share_its_cost() -> None:
    """Ten requests a second for $3.60 an hour: $0.0001 each; 100 tokens in, 25 out."""
    found = unit_costs(3.60, 10.0, Tokens(100.0, 25.0))
    assert found.per_1k_requests_usd == pytest.approx(0.10)
    assert found.per_1m_input_usd == pytest.approx(1.0)
    assert found.per_1m_output_usd == pytest.approx(4.0)
    assert found.per_1m_tokens_usd == pytest.approx(0.8)
    assert found.tokens_per_usd == pytest.approx(1_250_000)


def test_nothing_served_has_no_cost_for_each() -> None:
    """It is unknown, and neither 0 nor infinite."""
    assert unit_costs(1.0, 0.0, Tokens(1.0, 1.0)).per_1k_requests_usd is None


def test_break_even_is_where_both_cost_the_same() -> None:
    """$730 a month against an API at $0.50 in and $1.50 out: 1,000 and 250 tokens are $0.000875."""
    each = api_cost(Tokens(1000.0, 250.0), (0.50, 1.50))
    assert each == pytest.approx(0.000875)
    assert break_even_rps(730.0, each) * 730 * 3600 * each == pytest.approx(730.0)
    assert api_cost(Tokens(1000.0), (0.50, 1.50)) is None


@given(st.floats(0.01, 100), st.floats(0.001, 1000), st.floats(1, 1e5), st.floats(1, 1e5))
def test_all_costs_are_the_same_money(usd: float, rps: float, prompt: float, output: float) -> None:
    """Costs for each thing times their number are the cost of the hour, whatever is counted."""
    found, requests = unit_costs(usd, rps, Tokens(prompt, output)), rps * 3600
    for each, number in (
        (found.per_1k_requests_usd, requests / 1e3),
        (found.per_1m_input_usd, requests * prompt / 1e6),
        (found.per_1m_output_usd, requests * output / 1e6),
        (found.per_1m_tokens_usd, requests * (prompt + output) / 1e6),
    ):
        assert each is not None
        assert each * number == pytest.approx(usd)
