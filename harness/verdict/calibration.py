"""Judge by the calibration of a machine: how exactly the client measures there, and what load went beyond it."""

from __future__ import annotations

from harness.store.manifest import CalibrationEntry
from harness.verdict import thresholds
from harness.verdict.reason import Level

NOT_CALIBRATED = "This machine was not calibrated: run `harness doctor`."
UNREADABLE = "What is stored with this run about the calibration of its machine cannot be read."


def beyond(
    calibration: CalibrationEntry | None, streams: float | None, events_per_s: float | None, *, workers: int = 1
) -> str | None:
    """Return what of a load lies beyond what was calibrated, in one sentence; None where nothing does or is known.

    Args:
        calibration: As a run's manifest keeps it.
        streams: The most replies at once.
        events_per_s: Chunks per second.
        workers: Load processes that shared the load; one was calibrated.
    """
    if calibration is None:
        return None
    over = []
    for asked, known, name in (
        (streams, calibration.streams, "streams"),
        (events_per_s, calibration.events_per_s, "chunks/s"),
    ):
        if asked is not None and asked / workers > known:
            each = " for each load process" if workers > 1 else ""
            over.append(f"{asked / workers:,.0f} {name}{each} (calibrated up to {known:,.0f})")
    return f"The load went beyond what this machine was calibrated for: {' and '.join(over)}." if over else None


def sentence(calibration: CalibrationEntry | None) -> str:
    """Put what a run's manifest keeps of a calibration into words."""
    if calibration is None or calibration.is_empty:
        return NOT_CALIBRATED
    error_ms, day = calibration.ttft_error_p99_ms, calibration.created_utc[:10]
    if not day or (calibration.streams and error_ms is None):
        return UNREADABLE
    if not calibration.streams or error_ms is None:
        return f"Not even one stream could be measured exactly here, calibrated {day}: run `harness doctor`."
    within = f"{_plain(error_ms)} ms (p99 of first-token times)"
    most = f"{calibration.streams:,} streams, {_round(calibration.events_per_s)} chunks/s"
    sent = f" and {calibration.requests_per_s:,.0f} requests/s" if calibration.requests_per_s else ""
    shared = ", beside a server on the same cores" if calibration.shared else ""
    busy = calibration.busy_share
    alone = thresholds.BUSY.level(busy) is Level.VALID
    others = "" if alone else f", while other work kept the processor {busy:.0%} busy"
    return (
        f"Over HTTP the client measures here to within {within} up to {most}{sent}{shared}; calibrated {day}{others}."
    )


def _plain(value_ms: float) -> str:
    """Return two digits, never less than the clock could tell."""
    return f"{max(value_ms, 0.01):.2g}"


def _round(rate: float) -> str:
    return f"{round(rate, -2) if rate >= 1000 else rate:,.0f}"
