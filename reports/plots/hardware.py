"""Frontiers of machines side by side: throughput against speed per user, per GPU, per dollar and per watt."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from reports.format import dotted
from reports.hardware import named, prices
from reports.plots.drawing import Plot
from reports.plots.frontier import (
    ENERGY,
    OUTPUT,
    PER_DOLLAR,
    PER_GPU,
    PER_WATT,
    SYSTEM,
    Kind,
    Spot,
    frontier,
    per_dollar,
)
from reports.sweeps import RATE, SINGLE, USERS, Estimate

Row = Mapping[str, Any]


def of_machines(rows: Sequence[Row]) -> list[Plot]:
    """Return the frontiers in which at least two machines have loads, from the rows of `harness.capacity.hardware`."""
    several = len({(row["model"], row["configuration"]) for row in rows}) > 1
    names = {_keys(row): dotted(_keys(row) if several else (named(row),)) for row in rows}
    known = ((kind, spots) for kind, spots in _kinds(rows) if len({one.keys[0] for one in spots}) > 1)
    drawn = (frontier(replace(kind, name=f"machines-{kind.name}"), spots, names, {}) for kind, spots in known)
    return [plot for plot in drawn if plot is not None]


def _kinds(rows: Sequence[Row]) -> Iterator[tuple[Kind, list[Spot]]]:
    yield replace(SYSTEM, title=f"{SYSTEM.title}, of each machine"), _spots(rows, OUTPUT, lambda _: 1.0)
    if any(row["gpu_count"] > 1 for row in rows):
        with_gpus = [row for row in rows if row["gpu_count"]]
        yield PER_GPU, _spots(with_gpus, OUTPUT, lambda row: 1 / row["gpu_count"])
    priced = [row for row in rows if row["usd_per_hour"]]
    remark = "".join(f" {price}" for price in prices(priced))
    yield replace(PER_DOLLAR, remark=remark), _spots(priced, OUTPUT, lambda row: per_dollar(row["usd_per_hour"]))
    yield PER_WATT, _spots(rows, ENERGY, None)


def _spots(rows: Sequence[Row], metric: str, factor: Callable[[Row], float] | None) -> list[Spot]:
    """Return the loads with both numbers. factor: of the metric; None: its inverse is meant."""
    found = []
    for row in rows:
        tpot, number = (_estimate(row["intervals"].get(name)) for name in ("tpot_ms", metric))
        if tpot is not None and number is not None and number.value > 0:
            counted = number.inverted(1.0) if factor is None else number.times(factor(row))
            found.append(Spot(_keys(row), row["load"], row["load"], *_sweep(row), tpot.inverted(1000.0), counted))
    return found


def _keys(row: Row) -> tuple[str, ...]:
    return named(row), row["model"] or "", row["configuration"]


def _sweep(row: Row) -> tuple[tuple[str, str], float]:
    """Return what a load varies with others of its model and kind, and its place among them."""
    single = row["kind"] == SINGLE
    users = 1 if single else row["users"]
    kind = dotted((row["model"] or "", "sustained" if single else row["kind"], row["lengths"]))
    if users:
        return (USERS, kind), float(users)
    return ((RATE, kind), float(row["rate_rps"])) if row["rate_rps"] else (("", kind), math.nan)


def _estimate(found: Mapping[str, Any] | None) -> Estimate | None:
    if found is None:
        return None
    low, high = (math.nan if found[end] is None else found[end] for end in ("low", "high"))
    return Estimate(found["value"], low, high, poor=found["poor"])
