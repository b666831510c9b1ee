"""What requests and tokens cost on the machine under test, in words."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence

from reports.data import ALL, KEYS, POOLED, ReportData, keys_of_verdict, place
from reports.format import dotted, joined
from reports.names import load_names
from reports.plan import money
from reports.sweeps import names_of

_WORDS = {
    "cost_per_1k_requests_usd": "per 1,000 requests",
    "cost_per_1m_output_tokens_usd": "per million output tokens",
}
Keys = tuple[str, ...]


def costs_in_words(data: ReportData) -> Iterator[str]:
    """Yield the cost of each configuration at its cheapest load within the limits, with its price.

    Of a configuration whose every load breaks a limit, the cheapest of all, which says so.
    """
    price = data.manifest.price
    costs, failed = _costs_of(data), {keys_of_verdict(one) for one in data.verdicts if one["outcome"] == "fail"}
    if price is None or not costs:
        return
    names, short = names_of(data), load_names(data)
    for keys, own in _cheapest(costs, failed).items():
        name = names.get(keys[:-1], place(keys)) if len(names) > 1 else ""
        amounts = joined([f"{money(own[metric])} {words}" for metric, words in _WORDS.items() if metric in own])
        text = f"{amounts} at {short[keys[-1]]}{', which breaks a limit' if keys in failed else ''}"
        yield dotted((f"{name}: {text}" if name else text, price.text))


def _costs_of(data: ReportData) -> dict[Keys, dict[str, float]]:
    """Return the costs of each load whose rates are not poor, by metric."""
    rows = data.summary
    own = rows[rows["metric"].isin([*_WORDS]) & (rows["repetition"] == POOLED) & (rows["class"] == ALL)]
    found: dict[Keys, dict[str, float]] = {}
    for row in own.to_dict("records"):
        keys = tuple(str(row[key]) for key in KEYS)
        if row["value"] == row["value"] and not data.poor_because(keys, str(row["metric"])):
            found.setdefault(keys, {})[str(row["metric"])] = float(row["value"])
    return found


def _cheapest(costs: Mapping[Keys, Mapping[str, float]], failed: Container[Keys]) -> dict[Keys, Mapping[str, float]]:
    """Return the load of each configuration with the least cost of a request, or of a token where none met an SLO.

    Loads that broke a limit come last.
    """
    found = dict[Sequence[str], Keys]()
    for keys in sorted(costs, key=lambda keys: (keys in failed, *_order(costs[keys]))):
        found.setdefault(keys[:-1], keys)
    return {keys: costs[keys] for keys in costs if found[keys[:-1]] == keys}


def _order(costs: Mapping[str, float]) -> tuple[float, ...]:
    return tuple(costs.get(metric, float("inf")) for metric in _WORDS)
