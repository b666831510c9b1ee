"""Requests of a search: when they were due and ended, and which requirements they missed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from harness.analysis.stats import Floats


@dataclass(frozen=True, slots=True)
class Requirement:
    """Share of the requests that must meet a bound: the SLO of each request, or a limit on a percentile.

    Attributes:
        name: `slo`, or the limit as written in the scenario.
        share: Least share of good requests, such as 0.95.
    """

    name: str
    share: float


@dataclass(frozen=True, slots=True)
class Requests:
    """Requests known so far, in due order; times in seconds on the clock of the search.

    Attributes:
        due_s: Due times, ascending.
        ended_s: Ends, infinite for requests in flight.
        e2e_s: Time from due to the end of successful requests; NaN for others.
        ttft_s: Time from due to the first token; NaN where none is known.
        missed: Flags by name of the requirement: 1 missed, 0 met, NaN not decided yet.
        parts: The same by the parts of the SLO (`ttft`, `tpot`, `e2e`, `stall`, `errors`).
    """

    due_s: Floats
    ended_s: Floats
    e2e_s: Floats
    ttft_s: Floats
    missed: Mapping[str, Floats]
    parts: Mapping[str, Floats]

    def between(self, start_s: float, end_s: float) -> slice:
        """Return the places of the requests due in [start, end)."""
        first, last = np.searchsorted(self.due_s, [start_s, end_s])
        return slice(int(first), int(last))

    def in_flight(self, at_s: Floats) -> Floats:
        """Return the number of requests in flight at these moments."""
        found = np.searchsorted(self.due_s, at_s, "right") - np.searchsorted(np.sort(self.ended_s), at_s, "right")
        return found.astype(np.float64)

    def completed(self, start_s: float, end_s: float) -> int:
        """Return the number of successful requests that ended in [start, end)."""
        ended = self.ended_s[np.isfinite(self.e2e_s)]
        return int(((ended >= start_s) & (ended < end_s)).sum())
