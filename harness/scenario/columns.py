"""Columns of the results table, as the scenario's `columns` or `--columns` name them."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator

from harness.metrics import METRICS, STATISTICS
from harness.scenario.base import Name, near

GROUPS = (
    "load", "users", "rate", "ttft", "tpot", "itl", "e2e", "tokens", "goodput", "slo", "errors", "in_flight", "memory",
    "gpu_memory", "energy", "cost", "startup",
)  # fmt: skip
SHORT = {name: f"{name}_ms" for name in ("ttft", "tpot", "itl", "e2e")}


def parse_column(text: str) -> str:
    """Return a column as it is stored: a group, a metric, or a metric with a statistic, such as `ttft_ms p99`.

    Raises:
        ValueError: There is no such column; the message contains the fix.
    """
    name, *rest = text.split() or [""]
    if not rest and name.lower() in GROUPS:
        return name.lower()
    metric = METRICS.get(SHORT.get(name.lower(), name))
    if metric is None:
        hint = near(name, (*GROUPS, *METRICS))
        hint = hint if hint.startswith("did") else f"known are {', '.join(GROUPS)}, or a metric of docs/metrics.md"
        raise ValueError(f"there is no column `{name}`; {hint}")
    if not rest:
        return metric.name
    if not metric.takes_statistics:
        raise ValueError(f"`{metric.name}` has a single value; write `{metric.name}`")
    if (statistic := " ".join(rest)) not in STATISTICS:
        raise ValueError(f"the table has no statistic `{statistic}`; write one of {', '.join(STATISTICS)}")
    return f"{metric.name} {rest[0]}"


ColumnName = Annotated[Name, AfterValidator(parse_column)]
