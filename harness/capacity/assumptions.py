"""Assumptions of a plan as rows: each with its value, its meaning, and whether the user set it."""

from __future__ import annotations

from typing import Any

from harness.scenario.plan import Assumptions
from harness.units import format_duration


def listed(found: Assumptions, given: frozenset[str]) -> list[dict[str, Any]]:
    """Return each assumption as {key, value, meaning, given}; `given`: keys that the user set."""
    rows = []
    for name, field in Assumptions.model_fields.items():
        key, value = field.alias or name, getattr(found, name)
        if value is None:
            continue
        rows.append({"key": key, "value": _text(name, value), "meaning": field.description, "given": key in given})
    return rows


def _text(name: str, value: Any) -> str:
    if name in _SHARES:
        return f"{100 * value:.6g}%"
    if name.endswith("_s"):
        return format_duration(value)
    if isinstance(value, tuple):
        return "/".join(f"{part:g}" for part in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


_SHARES = ("growth", "forecast_error", "headroom", "interruptions_per_hour", "spot_risk", "attainment", "chance")
