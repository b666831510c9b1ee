"""The result of a search in words, and the row of each rate."""

from __future__ import annotations

from typing import Any

import pytest

from reports.tables.saturation import in_words

RATE = {"rate": 18.0, "state": "confirm", "seconds": 30.0, "requests": 540, "effective": 28.0, "overloaded": False}
FOUND: dict[str, Any] = {
    "lower_rps": 18.6,
    "value_rps": 19.7,
    "upper_rps": 21.2,
    "binding": "ttft",
    "confirmed": "likely",
    "ended": "width",
    "rates": [RATE],
}


def test_the_rate_to_plan_with_comes_first() -> None:
    """Then the interval, what limits it, and what the measurement said."""
    assert in_words(FOUND) == (
        "plan with 18.6 req/s; the largest rate is 18.6 to 21.2 (90 % each way), median 19.7, limited by TTFT; "
        "the measurement at 18.0 met the SLO, but was too short to be sure"
    )


def test_a_search_without_an_overload_has_no_upper_rate() -> None:
    """The reason says what to write."""
    found = FOUND | {"lower_rps": 4.0, "value_rps": None, "upper_rps": None, "ended": "largest_rate"}
    assert in_words(found) == (
        "at least 4.00 req/s: no overload up to the largest rate that it may send; raise `largest_rate`"
    )


@pytest.mark.parametrize("ended", ["lowest_rate", "budget", "largest_rate"])
def test_no_rate_is_planned_with_where_none_met_the_slo(ended: str) -> None:
    """The lowest rate that had requests is told; a longer time is not advised."""
    nothing = {"lower_rps": 0.0, "value_rps": None, "upper_rps": None, "confirmed": "no", "ended": ended}
    rates = [RATE | {"rate": 0.24, "requests": 0}, RATE | {"rate": 0.48, "attainment": 0.125}]
    assert in_words(FOUND | nothing | {"rates": rates}) == (
        "no rate is known to meet the SLO; at 0.480 req/s, the lowest that was tried, 12.5\u202f% of the requests "
        "met it"
    )


@pytest.mark.parametrize(
    ("changes", "end"),
    [
        (
            {"binding": "stability"},
            "limited by the backlog, which grows beyond it; the measurement at 18.0 met the SLO",
        ),
        ({"confirmed": "no"}, "the measurement at 18.0 missed the SLO"),
        ({"confirmed": None}, "limited by TTFT"),
        ({"ended": "budget"}, "set a longer `within`"),
        ({"ended": None}, "it was interrupted"),
    ],
)
def test_what_is_unsure_is_said(changes: dict[str, Any], end: str) -> None:
    """What limits the rate, whether the measurement agrees, and why the search ended early."""
    text = in_words(FOUND | {"confirmed": "yes"} | changes)
    assert text.endswith(end)
