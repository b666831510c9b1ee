"""Pictures of a comparison: pair by pair, also where a start lacks its number."""

from __future__ import annotations

from typing import Any

import pytest

from reports.data import KEYS
from reports.plots.comparison import pairs


def row(values: list[list[float | None]]) -> dict[str, Any]:
    """A gating number of so many pairs."""
    name = dict.fromkeys(KEYS, "") | {"metric": "goodput_rps", "statistic": "value", "class": "all", "load": "rate-4"}
    return {**name, "gates": True, "scale": "ratio", "values": values}


@pytest.mark.parametrize("pair", [[0.0, 4.0], [None, 4.0], [4.0, None], [4.0, 0.0]])
def test_a_pair_without_a_ratio_is_a_gap(pair: list[float | None]) -> None:
    """A start without a good request, or of which only a bound is known, does not end the page."""
    plot = pairs({"pairs": 4, "rows": [row([[4.0, 5.0], pair, [4.0, 4.0], [5.0, 4.0]])]})
    assert plot is not None
    assert plot.alt == "Change in each of 4 pairs of starts."


def test_without_a_known_pair_there_is_no_picture() -> None:
    """All requests of one side timed out in each start."""
    assert pairs({"pairs": 4, "rows": [row([[4.0, None]] * 4)]}) is None
