"""Damage that a table's format does not show: rows that contradict each other, or that are missing."""

from __future__ import annotations

from collections.abc import Iterable

from harness.analysis.reading import Reading
from harness.errors import FileUnreadable
from harness.records import Phase, Status
from harness.store.manifest import TrialEntry


def check_rows(reading: Reading) -> None:
    """Raise FileUnreadable for records whose numbers would be wrong."""
    if (why := wrong_rows(reading)) is not None:
        raise FileUnreadable(f"the records in {reading.trial.path} are damaged: {why}")


def lose_missing(trials: Iterable[TrialEntry]) -> None:
    """Mark complete trials without records as failed: their file was there once."""
    for trial in trials:
        if trial.status == "complete":
            trial.status, trial.reason = "failed", f"{trial.path}/records.parquet is missing"


def wrong_rows(reading: Reading) -> str | None:
    """Return what contradicts itself in the records of a trial, None if nothing does."""
    frame, trial = reading.frame, reading.trial
    for name, known in (("status", Status), ("phase", Phase)):
        odd = set(frame[name].dropna().unique().astype(str)) - {str(one) for one in known}
        if odd or frame[name].isna().any():
            return f"it has requests with the {name} {min(odd)!r}" if odd else f"it has requests without a {name}"
    if twice := int(frame["request"].duplicated().sum()):
        return f"{twice} of {len(frame)} rows repeat another request's number"
    if early := int((frame["done_ns"] < frame["sent_ns"]).sum()):
        return f"{early} of {len(frame)} requests end before they were sent"
    recorded = 0 if trial.client is None else trial.client.recorded
    if trial.status == "complete" and len(frame) < recorded:
        return f"{len(frame)} of {recorded} recorded requests are left"
    return None
