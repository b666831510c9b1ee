"""Nights of known numbers, for tests of the history."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from harness.history.store.night import Night, Row, Setup, What, digest

BEGIN = datetime(2026, 6, 1, 2, tzinfo=UTC)
SETUP = Setup("1:aa 2:bb", "", "kernel", "inprocess", "w1", "llama-server 1", '{"n_ctx": 1024}')


def what(metric: str = "ttft_ms", statistic: str = "p50", **fields: str) -> What:
    """A number of one configuration; `fields` replace its fields."""
    usual = What("chat", "", metric, statistic, "tiny", "llama-server", "q8_0", "")
    return usual._replace(**fields)


def row(value: float, of: What | None = None, setup: Setup = SETUP, doubt: str = "") -> Row:
    """A number with an interval of 1 % on either side."""
    return Row(of or what(), value, value * 0.99, value * 1.01, 400, 1, doubt, setup)


def night(day: int, *rows: Row | float, **fields: Any) -> Night:
    """The night so many days after the first. Bare numbers are values of the usual series."""
    found = tuple(one if isinstance(one, Row) else row(one) for one in rows)
    usual = Night(
        at=BEGIN + timedelta(days=day),
        run=f"run-{day}",
        identity=digest(["run", day]),
        scenario="nightly",
        machine="xeon-2-abc123",
        method=2,
        rows=found,
        labels={"commit": f"{day:040x}"},
        state={"governor": "performance", "kernel": "6.1"},
    )
    return replace(usual, **fields)


def year(values: Sequence[float]) -> list[Night]:
    """One night for each value; NaN for a number that is unknown."""
    return [night(day, row(value, doubt="" if math.isfinite(value) else "bound")) for day, value in enumerate(values)]
