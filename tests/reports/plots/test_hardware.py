"""Frontiers of machines side by side: what is drawn of which, and whose prices stand beside it."""

from __future__ import annotations

from typing import Any

import pytest

from reports.plots.hardware import of_machines

SECONDS_PER_HOUR = 3600.0


def row(run: str, users: int, tokens_per_s: float, tpot_ms: float, **changes: Any) -> dict[str, Any]:
    """A load of users on a machine, its numbers known to a percent."""
    intervals = {
        name: {"value": value, "low": 0.99 * value, "high": 1.01 * value, "poor": ""}
        for name, value in (("output_tokens_per_s", tokens_per_s), ("tpot_ms", tpot_ms))
    }
    known = {
        "run": run, "machine": None, "gpu_count": 1, "usd_per_hour": None, "pricing": None, "price_date": None,
        "price_source": None, "model": "tiny", "configuration": "vllm q4", "load": f"sustained-users-{users}",
        "kind": "sustained", "lengths": "", "rate_rps": None, "users": users, "intervals": intervals,
    }  # fmt: skip
    return known | changes


def priced(usd: float, machine: str) -> dict[str, Any]:
    """The keys of a machine with a price."""
    named = {"machine": machine, "pricing": "on_demand", "price_date": "2026-11", "price_source": "a guide"}
    return named | {"usd_per_hour": usd}


def test_two_machines_have_a_curve_each() -> None:
    """A load that another machine serves better in both is dominated by it."""
    rows = [row("a", n, 100.0 * n, 10.0) for n in (1, 2)] + [row("b", n, 50.0 * n, 20.0) for n in (1, 2)]
    (system,) = of_machines(rows)
    assert system.name == "machines-system"
    assert system.table is not None
    assert [(one[0].text, one[4].text) for one in system.table.rows] == [
        ("a", ""),
        ("a", ""),
        ("b", "a, sustained-users-1"),
        ("b", "a, sustained-users-2"),
    ]


def test_a_cheap_machine_may_serve_more_per_dollar() -> None:
    """Each by its own price, whose date and source stand beside the picture; one without a price is not drawn there."""
    rows = [row("a", 1, 100.0, 10.0, **priced(4.0, "big")), row("b", 1, 50.0, 20.0, **priced(1.0, "small"))]
    found = {plot.name: plot for plot in of_machines([*rows, row("c", 1, 10.0, 10.0)])}
    assert list(found) == ["machines-system", "machines-per-dollar"]
    table = found["machines-per-dollar"].table
    assert table is not None
    per_dollar = [one[2].value for one in table.rows]
    assert per_dollar == [pytest.approx(100 * SECONDS_PER_HOUR / 4e6), pytest.approx(50 * SECONDS_PER_HOUR / 1e6)]
    assert found["machines-per-dollar"].reading.endswith(
        " big on demand $4 an hour, as of 2026-11: a guide. small on demand $1 an hour, as of 2026-11: a guide."
    )


def test_gpus_count_where_a_machine_has_several() -> None:
    """Each machine by its own number."""
    rows = [row("a", 1, 400.0, 10.0, gpu_count=4), row("b", 1, 150.0, 10.0), row("c", 1, 9.0, 10.0, gpu_count=0)]
    per_gpu = of_machines(rows)[1].table
    assert per_gpu is not None
    assert [one[2].value for one in per_gpu.rows] == [100.0, 150.0]


def test_one_machine_alone_has_no_picture_of_machines() -> None:
    """Its own report has it."""
    assert of_machines([row("a", n, 100.0 * n, 10.0) for n in (1, 2)]) == []


def test_a_small_model_does_not_dominate_a_large_one() -> None:
    """They do not say the same; each has a name in the legend."""
    rows = [row("a", 1, 100.0, 10.0), row("b", 1, 50.0, 20.0, model="large")]
    (system,) = of_machines(rows)
    assert system.table is not None
    assert [one[0].text for one in system.table.rows] == ["a · tiny · vllm q4", "b · large · vllm q4"]
    assert system.table.head[-1] != "dominated by"


def test_joules_per_token_are_tokens_per_joule() -> None:
    """Of the machines whose energy was measured."""
    rows = [row(run, 1, 100.0, 10.0) for run in ("a", "b", "c")]
    for one, joules in zip(rows, (0.5, 0.25), strict=False):
        one["intervals"]["energy_j_per_output_token"] = {"value": joules, "low": None, "high": None, "poor": ""}
    per_watt = of_machines(rows)[-1]
    assert per_watt.name == "machines-per-watt"
    assert per_watt.table is not None
    assert [one[2].value for one in per_watt.table.rows] == [2.0, 4.0]


def test_unknown_ends_of_an_interval_are_open() -> None:
    """Such a load is drawn, and dominates none."""
    rows = [row("a", 1, 100.0, 10.0), row("b", 1, 50.0, 20.0)]
    rows[0]["intervals"]["tpot_ms"] |= {"low": None, "high": None}
    (system,) = of_machines(rows)
    assert system.table is not None
    assert system.table.head[-1] != "dominated by"
