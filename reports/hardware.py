"""Machines side by side as two tables: what each measured, and what that costs there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from reports.format import UNKNOWN, amount, grouped
from reports.plan import money
from reports.tables.base import Cell, Table

Row = Mapping[str, Any]
_OUTPUT, _ENERGY = "output_tokens_per_s", "energy_j_per_output_token"
_FULL = "full: no load of this configuration completed more requests on this machine"


def tables(rows: Sequence[Row]) -> list[Table]:
    """Return the table of machines, and that of costs if a machine has a price; none without rows."""
    if not rows:
        return []
    return [machines(rows), *([costs(rows)] if any(row["usd_per_hour"] is not None for row in rows) else [])]


def machines(rows: Sequence[Row]) -> Table:
    """Return what each run measured on its machine."""
    head = ("run", "model", "GPU", "load", "parameters", "concurrent", "tokens/s", "E2E p95, ms")
    found = [_machine(row) for row in rows]
    return Table("Machines", head, found, texts=4, foot=_brackets(found))


def _machine(row: Row) -> tuple[Cell, ...]:
    concurrent = row["users"] if row["users"] is not None else row["in_flight"]
    return (
        Cell(named(row)),
        Cell(" ".join(filter(None, (row["model"], f"({row['configuration']})" if row["configuration"] else "")))),
        Cell(row["gpus"] or UNKNOWN),
        Cell(row["load"]),
        _number(row["parameters"], _count(row["parameters"])),
        _number(concurrent, UNKNOWN if concurrent is None else amount(concurrent)),
        _number(row[_OUTPUT], _amount(row[_OUTPUT]), _poor(row, _OUTPUT)),
        _number(row["e2e_p95_ms"], _amount(row["e2e_p95_ms"], "time"), _poor(row, "e2e_ms")),
    )


def named(row: Row) -> str:
    """Return a run with its machine."""
    return f"{row['run']} ({row['machine']})" if row["machine"] else str(row["run"])


def _count(value: float | None) -> str:
    if value is None:
        return UNKNOWN
    size, sign = next(((size, sign) for size, sign in ((1e9, "B"), (1e6, "M")) if value >= size), (1.0, ""))
    return f"{value / size:.3g}{sign}"


def _amount(value: float | None, show: str = "number") -> str:
    return UNKNOWN if value is None else amount(value, show=show)


def _number(value: float | None, text: str, poor: str = "") -> Cell:
    """Return a number; in brackets if its data is poor, with the reason."""
    if value is None:
        return Cell(text)
    return Cell(f"({text})", tone="bad", value=float(value), why=poor) if poor else Cell(text, value=float(value))


def _poor(row: Row, metric: str) -> str:
    """Return why the data of a number is poor, "" if it is not."""
    return str((row["intervals"].get(metric) or {}).get("poor", ""))


def _brackets(rows: Sequence[tuple[Cell, ...]]) -> tuple[str, ...]:
    """Return what brackets mean, where there are some."""
    return ("( ): not reliable, the data is poor.",) if any(cell.why for row in rows for cell in row) else ()


def costs(rows: Sequence[Row]) -> Table:
    """Return what each load costs on its machine."""
    head = (
        *("run", "load", "at", "an hour", "requests/h", "1,000 requests", "1M input", "1M output", "1M tokens"),
        *("tokens per $", "J/token"),
    )
    foot = ["Each cost is all of the money, divided by that thing alone.", f"{_FULL}."]
    found = [_cost(row) for row in rows]
    foot += [*prices(rows), *_brackets(found)]
    return Table("Costs", head, found, texts=3, foot=tuple(foot))


def prices(rows: Sequence[Row]) -> list[str]:
    """Return what an hour of each machine costs, with date and source."""
    return list(dict.fromkeys(_price(row) for row in rows if row["usd_per_hour"] is not None))


def _price(row: Row) -> str:
    price = f"{row['machine']} {row['pricing'].replace('_', ' ')} ${row['usd_per_hour']:.4g} an hour"
    return f"{price}, as of {row['price_date']}: {row['price_source']}."


def _cost(row: Row) -> tuple[Cell, ...]:
    hourly, tokens, requests = row["usd_per_hour"], row["tokens_per_usd"], row["requests_per_hour"]
    poor = str(row["poor"])
    of_requests, of_tokens = ("per_1k_requests_usd", "per_1m_input_usd"), ("per_1m_output_usd", "per_1m_tokens_usd")
    return (
        Cell(named(row)),
        Cell(row["load"]),
        Cell("full" if row["full"] else ""),
        _number(hourly, UNKNOWN if hourly is None else f"${hourly:.3f}"),
        _number(requests, UNKNOWN if requests is None else grouped(f"{requests:.0f}"), poor),
        *(_number(row[name], money(row[name]), poor) for name in of_requests),
        *(_number(row[name], money(row[name]), poor or _poor(row, _OUTPUT)) for name in of_tokens),
        _number(tokens, UNKNOWN if tokens is None else grouped(f"{tokens:.0f}"), poor or _poor(row, _OUTPUT)),
        _number(row["joules_per_output_token"], _amount(row["joules_per_output_token"]), _poor(row, _ENERGY)),
    )
