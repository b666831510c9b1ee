"""How far a trial is, kept up to date record by record: counts and the last few latencies, nothing that grows."""

from __future__ import annotations

import statistics
from collections import Counter, deque
from typing import Any

from harness.records import Phase, Record, Status
from harness.workload import Schedule

RECENT = 50
SILENT_AFTER = 10


class Progress:
    """Counts of one trial. Latencies are of the most recent requests: a glance, not a result."""

    def __init__(self, schedule: Schedule) -> None:
        self._planned = None if schedule.continues else schedule.count  # cooldown rows are not work to be done
        self._window = schedule.window
        self._statuses: Counter[str] = Counter()
        self._recent_ttft_ms: deque[float] = deque(maxlen=RECENT)
        self._last_done_ns = 0
        self._unreachable = 0
        self._unreachable_since_ns: int | None = None
        self._unreachable_reason = ""

    def add(self, record: Record) -> None:
        """Take one finished request into account."""
        self._statuses[record.status] += 1
        if record.done_ns is not None:
            self._last_done_ns = max(self._last_done_ns, record.done_ns)
        if record.first_token_ns is not None and record.due_ns is not None:
            self._recent_ttft_ms.append((record.first_token_ns - record.due_ns) / 1e6)
        self._follow_reachability(record)

    def _follow_reachability(self, record: Record) -> None:
        if record.status == Status.CONNECTION_ERROR:
            self._unreachable += 1
            if self._unreachable_since_ns is None:
                self._unreachable_since_ns = record.done_ns
                self._unreachable_reason = record.error or ""
        elif record.status == Status.OK:
            self._unreachable, self._unreachable_since_ns = 0, None

    def silence(self) -> str | None:
        """If the trial ended in an unbroken row of failed connections: since when, and why. None otherwise."""
        everything = self._statuses.total() - self._statuses[Status.NOT_SENT]
        if self._unreachable < min(SILENT_AFTER, max(1, everything)) or self._unreachable_since_ns is None:
            return None
        return (
            f"the server could not be reached from {self._unreachable_since_ns / 1e9:.1f} s on to the end "
            f"({self._unreachable} requests): {self._unreachable_reason}"
        )

    def facts(self) -> dict[str, Any]:
        """What a display needs. phase is that of now, judged by the last request that ended."""
        end_ns = self._window.end_ns
        phase = (
            Phase.WARMUP
            if self._last_done_ns < self._window.start_ns
            else Phase.COOLDOWN
            if end_ns is not None and self._last_done_ns > end_ns
            else Phase.MEASURE
        )
        return {
            "done": self._statuses.total(),
            "planned": self._planned,
            "ends_s": None if end_ns is None else end_ns / 1e9,
            "failed": self._statuses.total() - self._statuses[Status.OK] - self._statuses[Status.CANCELLED],
            "ttft_ms": statistics.median(self._recent_ttft_ms) if self._recent_ttft_ms else None,
            "phase": str(phase),
        }
