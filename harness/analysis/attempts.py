"""Attempts at requests that failed and were followed by others: how long each took, by cause."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from harness.analysis.columns import NS_PER_MS, NS_PER_S
from harness.analysis.stats import Flags, Floats
from harness.records import Phase

ATTEMPT_COLUMNS = ("attempt_sent_ns", "attempt_done_ns", "attempt_end", "phase")


@dataclass(frozen=True, slots=True)
class Attempts:
    """Failed attempts, shape (n,), in no order; NaN for one that was not sent."""

    cause: tuple[str, ...]
    sent_s: Floats  # from T0
    done_s: Floats
    measured: Flags  # of requests of the measurement

    @property
    def took_ms(self) -> Floats:
        """Time from sent to the failure."""
        return (self.done_s - self.sent_s) * NS_PER_S / NS_PER_MS

    def by_cause(self) -> list[dict[str, Any]]:
        """Return the attempts by cause, the most frequent first, JSON-able.

        Keys: cause, attempts, measured (of requests of the measurement), first_s, last_s (when they failed, from T0),
        p50_ms, max_ms (from sent to the failure; None if none was sent).
        """
        found = []
        causes = np.array(self.cause, dtype=object)
        for cause in dict.fromkeys(self.cause):
            own = causes == cause
            took, done = self.took_ms[own], self.done_s[own]
            took, done = took[np.isfinite(took)], done[np.isfinite(done)]
            known = {"p50_ms": float(np.median(took)), "max_ms": float(took.max())} if len(took) else {}
            found.append(
                {
                    "cause": cause,
                    "attempts": int(own.sum()),
                    "measured": int((own & self.measured).sum()),
                    "first_s": float(done.min()) if len(done) else None,
                    "last_s": float(done.max()) if len(done) else None,
                    "p50_ms": None,
                    "max_ms": None,
                }
                | known
            )
        return sorted(found, key=lambda one: -one["attempts"])


NO_ATTEMPTS = Attempts((), np.empty(0), np.empty(0), np.empty(0, dtype=np.bool_))


def attempts_of(batches: Iterable[pa.RecordBatch]) -> Attempts:
    """Return the failed attempts in batches with ATTEMPT_COLUMNS. The last one of each request is its outcome."""
    cause, times, measured = list[str](), list[tuple[float, float]](), list[bool]()
    for batch in batches:
        some = batch.filter(batch.column("attempt_end").is_valid())
        for row in some.select(ATTEMPT_COLUMNS).to_pylist():
            for sent_ns, done_ns, end in zip(*(row[name][:-1] for name in ATTEMPT_COLUMNS[:3]), strict=True):
                cause.append(end)
                times.append((_seconds(sent_ns), _seconds(done_ns)))
                measured.append(row["phase"] == Phase.MEASURE)
    sent_s, done_s = np.array(times, dtype=np.float64).reshape(-1, 2).T
    return Attempts(tuple(cause), sent_s, done_s, np.array(measured, dtype=np.bool_))


def _seconds(at_ns: int | None) -> float:
    return float("nan") if at_ns is None else at_ns / NS_PER_S
