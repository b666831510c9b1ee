"""Reasons for which a curve is not shown."""

from __future__ import annotations

from dataclasses import dataclass

from harness.verdict.thresholds import HOLD_OUT


@dataclass(frozen=True, slots=True)
class Refusal:
    """Reason for which there is no fit: a clause without a full stop."""

    why: str


def unlike_the_points(hold_out: float) -> Refusal | None:
    """Return a refusal if a curve misses points that it was fitted without by too much."""
    if hold_out <= HOLD_OUT.value:
        return None
    return Refusal(f"the curve misses points held out by {hold_out:.0%} on average, limit {HOLD_OUT.value:.0%}")
