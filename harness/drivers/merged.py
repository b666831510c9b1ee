"""Several clients' reports of themselves as one: the worst of what says how well they measured, the sum of the rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from harness.drivers.base import DriveReport
from harness.records import Clock

_SUMMED = frozenset(
    {
        "not_sent",
        "cooldown",
        "connections_opened",
        "connect_errors",
        "connections_in_window",
        "canary_events",
        "resends",
        "unreadable_events",
        "impossible_counts",
    }
)
_OWN = frozenset(
    {"t0_ns", "planned", "measured_until_ns", "recorded", "interrupted", "clock", "notes", "recounted", "workers"}
)


def merged(reports: Sequence[dict[str, Any]], t0_ns: int, planned: int | None) -> DriveReport:
    """One report of several, each as a mapping, of those who died also an incomplete one.

    Numbers are the worst (largest) of any, connections the sum; the clock is the kernel's where it was everyone's.
    """
    report = DriveReport(t0_ns=t0_ns, planned=planned)
    for name in (each.name for each in fields(DriveReport) if each.name not in _OWN):
        values = [value for one in reports if isinstance(value := one.get(name), int | float)]
        if values:
            setattr(report, name, sum(values) if name in _SUMMED else max(values))
    clocks = {one["clock"] for one in reports if one.get("clock")}
    report.clock = Clock.KERNEL if clocks == {Clock.KERNEL} else Clock.LOOP
    report.measured_until_ns = min(
        (one["measured_until_ns"] for one in reports if one.get("measured_until_ns") is not None), default=None
    )
    report.interrupted = any(one.get("interrupted") for one in reports)
    report.recorded = sum(one.get("recorded", 0) for one in reports)
    for one in reports:
        report.notes += [f"load worker {one.get('worker')}: {note}" for note in one.get("notes", ())]
        report.recounted += one.get("recounted", ())
    report.workers = [{name: value for name, value in one.items() if name != "recounted"} for one in reports]
    return report
