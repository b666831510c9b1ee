"""Steady: whether what was measured had stopped warming up and did not drift."""

from __future__ import annotations

from typing import Any

CHANGING_LOADS = ("burst", "steps", "trace")


def changes_by_plan(trial: dict[str, Any]) -> bool:
    """Whether the load of a trial is not the same throughout, as it was planned."""
    return trial.get("kind") in CHANGING_LOADS or bool(trial.get("ramp"))
