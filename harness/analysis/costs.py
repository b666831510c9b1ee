"""Cost of requests and tokens: rows that follow from rates and the price of an hour."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

from harness.analysis.columns import ALL
from harness.analysis.stats import Bound
from harness.metrics import METRICS, RATE_OF_COST
from harness.store.manifest import Price

_HOUR_S = 3600.0
_AMOUNTS = {"cost_per_1k_requests_usd": 1e3, "cost_per_1m_output_tokens_usd": 1e6}
"""Requests or tokens that each cost is the price of."""
_COST_OF = {rate: cost for cost, rate in RATE_OF_COST.items()}
_TURNED = {Bound.LOWER.value: Bound.UPPER.value, Bound.UPPER.value: Bound.LOWER.value}


def with_costs(rows: Iterable[dict[str, Any]], price: Price | None) -> Iterator[dict[str, Any]]:
    """Yield the rows of a summary and, where the price of an hour is known, the cost that follows from each rate.

    A cost is the price of an hour / the rate in an hour, for 1,000 requests or a million tokens; the least rate gives
    the greatest cost. Rates of zero have no cost.
    """
    for row in rows:
        yield row
        if price is not None and row["metric"] in _COST_OF and row["class"] == ALL:
            name = _COST_OF[row["metric"]]
            at = {end: _cost(row[end], price.usd_per_hour, _AMOUNTS[name]) for end in ("value", "low", "high")}
            if math.isfinite(at["value"]) or math.isfinite(at["low"]):
                turned = {"value": at["value"], "low": at["high"], "high": at["low"]}
                bound = {"bound": _TURNED.get(row["bound"], row["bound"])}
                yield row | {"metric": name, "unit": METRICS[name].unit, "source": price.text} | turned | bound


def _cost(rate: float, usd_per_hour: float, amount: float) -> float:
    """Return the cost of an amount at a rate per second, in USD."""
    return usd_per_hour / (rate * _HOUR_S) * amount if rate > 0 and math.isfinite(rate) else math.nan
