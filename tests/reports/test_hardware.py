"""Tables of machines side by side: what is not reliable says so."""

from __future__ import annotations

from typing import Any

from reports.format import UNKNOWN
from reports.hardware import tables
from reports.tables.base import Cell

WHY = "Requests were never sent."


def row(poor: str = "", **poor_numbers: str) -> dict[str, Any]:
    """A load of 64 users on a machine with a price. poor: why its rates are poor; poor_numbers: why others are."""
    values = {"output_tokens_per_s": 640.0, "e2e_ms": 10_000.0}
    return {
        "run": "a100", "machine": "a100-40gb", "gpus": "A100", "model": "tiny", "configuration": "", "load": "chat",
        "parameters": None, "users": 64, "in_flight": 64.0, "output_tokens_per_s": 640.0, "e2e_p95_ms": 10_000.0,
        "joules_per_output_token": None, "usd_per_hour": 4.1, "pricing": "on_demand", "price_date": "2026-11",
        "price_source": "a guide", "requests_per_hour": 23_040.0, "per_1k_requests_usd": 0.178,
        "per_1m_input_usd": 1.39, "per_1m_output_usd": 1.78, "per_1m_tokens_usd": 0.78, "tokens_per_usd": 1_281_249.0,
        "full": True, "poor": poor,
        "intervals": {
            name: {"value": value, "low": value, "high": value, "poor": poor_numbers.get(name, "")}
            for name, value in values.items()
        },
    }  # fmt: skip


def marked(found: dict[str, Any]) -> tuple[set[str], set[str]]:
    """The columns of both tables whose number stands in brackets."""
    both = []
    for table in tables([found]):
        cells: dict[str, Cell] = dict(zip(table.head, table.rows[0], strict=True))
        both.append({name for name, cell in cells.items() if cell.text.startswith("(")})
        assert {cell.tone for name, cell in cells.items() if name in both[-1]} <= {"bad"}
        assert any(line.startswith("( )") for line in table.foot) is bool(both[-1])
    machines, costs = both
    return machines, costs


def test_numbers_of_poor_data_stand_in_brackets() -> None:
    """Each by its own caveats: a cost is as poor as the rate that it is made of, the price of an hour never."""
    of_requests = {"requests/h", "1,000 requests", "1M input"}
    of_tokens = {"1M output", "1M tokens", "tokens per $"}
    assert marked(row()) == (set(), set())
    assert marked(row(WHY)) == (set(), of_requests | of_tokens)
    assert marked(row(output_tokens_per_s=WHY)) == ({"tokens/s"}, of_tokens)
    assert marked(row(e2e_ms=WHY)) == ({"E2E p95, ms"}, set())


def test_an_unknown_rate_is_not_nought() -> None:
    """Nor are the costs that follow from it."""
    unknown = dict.fromkeys(("requests_per_hour", "per_1k_requests_usd"))
    _, costs = tables([row() | unknown])
    cells = dict(zip(costs.head, costs.rows[0], strict=True))
    assert {cells[name].text for name in ("requests/h", "1,000 requests")} == {UNKNOWN}
