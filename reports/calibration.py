"""One sentence on how exactly the client measures where the run was made."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

NOT_CALIBRATED = "This machine was not calibrated: run `harness doctor`."

UNREADABLE = "What is stored with this run about the calibration of its machine cannot be read."
BUSY_SHARE = 0.2


def calibration_sentence(manifest: Mapping[str, Any]) -> str:
    """For a run's report, from the calibration that its manifest keeps."""
    try:
        return sentence((manifest.get("provenance") or {}).get("calibration"))
    except (AttributeError, KeyError, TypeError, ValueError):
        return UNREADABLE


def sentence(calibration: Mapping[str, Any] | None) -> str:
    """A calibration (`harness.calibration.Calibration.summary`) in words."""
    if not calibration:
        return NOT_CALIBRATED
    day = str(calibration["created_utc"])[:10]
    if not calibration["streams"]:
        return f"Not even one stream could be measured exactly here, calibrated {day}: run `harness doctor`."
    within = f"{_plain(calibration['ttft_error_p99_ms'])} ms (p99 of first-token times)"
    most = f"{calibration['streams']:,} streams, {_round(calibration['events_per_s'])} chunks/s"
    sent = f" and {calibration['requests_per_s']:,.0f} requests/s" if calibration["requests_per_s"] else ""
    shared = ", beside a server on the same cores" if calibration["shared"] else ""
    busy = calibration.get("busy_share") or 0.0
    others = f", while other work kept the processor {busy:.0%} busy" if busy > BUSY_SHARE else ""
    return (
        f"Over HTTP the client measures here to within {within} up to {most}{sent}{shared}; calibrated {day}{others}."
    )


def _plain(value_ms: float) -> str:
    """Two digits, never less than the clock could tell."""
    return f"{max(value_ms, 0.01):.2g}"


def _round(rate: float) -> str:
    return f"{round(rate, -2) if rate >= 1000 else rate:,.0f}"
