"""Machines side by side: what each run measured on its machine, and what that costs there."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from harness.capacity.cost import Tokens, unit_costs
from harness.comparison.measured import Measurement
from harness.comparison.sides import Side
from harness.metrics import SCALAR
from harness.prices.catalogue import Catalogue, read_catalogue
from harness.scenario.plan import Pricing
from harness.store.manifest import Manifest

ENERGY = "energy_j_per_output_token"
_INTERVALS = (("tpot_ms", "p50"), ("e2e_ms", "p95"), ("output_tokens_per_s", SCALAR), (ENERGY, SCALAR))


def hardware_rows(side: Side, instance: str | None, catalogue: Catalogue, pricing: Pricing) -> list[dict[str, Any]]:
    """Return a row for each load that a run measured; unknown numbers are None.

    Args:
        instance: Machine in the catalogue; None: as the scenario says, and without a price if it does not.

    Raises UsageError if the machine is not in the catalogue, or has no such price.
    """
    machine = instance or side.manifest.scenario_keys.instance
    known = None if machine is None else catalogue.find(machine)
    price = _price(machine, catalogue, pricing)
    gpus = _gpus(side.manifest) or ("" if known is None else known.gpu)
    number = gpus_under_test(side.manifest) if known is None else known.gpus
    about = {"run": side.name, "gpus": gpus, "gpu_count": number, **price}
    return _with_full([about | _measured(one, price["usd_per_hour"]) for one in side.measurements])


def gpus_under_test(manifest: Manifest) -> int:
    """Return the number of GPUs of the machine that a scenario names; 0 unknown or none.

    Without a name they are the GPUs of this machine, unless the server may be on another one.
    """
    known = read_catalogue().instances.get(manifest.scenario_keys.instance or "")
    if known is not None:
        return known.gpus
    elsewhere = any(cell.engine_info.options.get("url") for cell in manifest.cells)
    return 0 if elsewhere else len(manifest.provenance.must_match.gpus)


def _price(machine: str | None, catalogue: Catalogue, pricing: Pricing) -> dict[str, Any]:
    """Return the price of an hour of a machine with its date; unknown values are None for none."""
    known = None if machine is None else catalogue.find(machine)
    return {
        "machine": machine,
        "usd_per_hour": None if machine is None else catalogue.hourly(machine, pricing),
        "pricing": None if known is None else pricing.value,
        "price_date": None if known is None else known.date,
        "price_source": None if known is None else known.source,
    }


def _gpus(manifest: Manifest) -> str:
    """Return the GPUs that a run saw, equal ones with their number; "" if it saw none."""
    seen = [
        str(one.get("name", one)) if isinstance(one, Mapping) else one for one in manifest.provenance.must_match.gpus
    ]
    return ", ".join(f"{seen.count(name)} x {name}" if seen.count(name) > 1 else name for name in dict.fromkeys(seen))


def _measured(one: Measurement, hourly: float | None) -> dict[str, Any]:
    completed = _value(one, "completed_rps")
    each = [_per(_value(one, name), completed) for name in ("input_tokens_per_s", "output_tokens_per_s")]
    tokens = Tokens(each[0], each[1])
    rate, usd = (math.nan if number is None else number for number in (completed, hourly))
    costs = unit_costs(usd, rate, tokens)
    return {
        "configuration": " ".join(filter(None, one.keys[1:4])),
        "model": one.cell.engine_info.model or one.keys[0],
        "parameters": one.cell.engine_info.parameters,
        "load": one.keys[-1],
        "kind": one.trial.kind,
        "lengths": one.trial.lengths_in_words,
        "rate_rps": one.trial.rate,
        "users": one.trial.users,
        "in_flight": _value(one, "mean_concurrency"),
        "output_tokens_per_s": _value(one, "output_tokens_per_s"),
        "e2e_p95_ms": _value(one, "e2e_ms", "p95"),
        "joules_per_output_token": _value(one, ENERGY),
        "intervals": {
            name: found for name, statistic in _INTERVALS if (found := _interval(one, name, statistic)) is not None
        },
        "poor": one.poor_because("completed_rps"),
        **{name: _known(number) for name, number in asdict(costs).items()},
    }


def _with_full(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows, each with whether no load of its configuration completed more requests."""
    most: dict[tuple[str, str], float] = {}
    for row in rows:
        keys = row["model"], row["configuration"]
        most[keys] = max(most.get(keys, 0.0), row["requests_per_hour"] or 0.0)
    return [
        row | {"full": (row["requests_per_hour"] or 0.0) == most[row["model"], row["configuration"]] > 0}
        for row in rows
    ]


def _value(one: Measurement, metric: str, statistic: str = SCALAR) -> float | None:
    found = one.pooled.get(("all", metric, statistic))
    return None if found is None else _known(found.value)


def _interval(one: Measurement, metric: str, statistic: str) -> dict[str, float | str | None] | None:
    """Return a number with the ends of its 95 % interval, and why its data is poor; None without a number."""
    found = one.pooled.get(("all", metric, statistic))
    if found is None or not math.isfinite(found.value):
        return None
    poor = one.poor_because(metric)
    return {"value": found.value, "low": _known(found.low), "high": _known(found.high), "poor": poor}


def _known(number: float | None) -> float | None:
    return None if number is None or not math.isfinite(number) else number


def _per(amount: float | None, by: float | None) -> float | None:
    return None if amount is None or not by else amount / by
