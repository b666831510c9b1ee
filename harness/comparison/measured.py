"""What was measured of a configuration under a load, over its starts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from harness.analysis.paired import OfRequests
from harness.analysis.stats import Measured
from harness.store.manifest import CellEntry, TrialEntry

Figure = tuple[str, str, str]
"""Class of traffic, metric and statistic."""
Finding = tuple[str, tuple[str, ...]]
"""Why data is poor, and the metrics that it is about; none for all."""
BY_REQUEST = ("ttft_ms", "tpot_ms", "e2e_ms", "ttft_service_ms", "e2e_service_ms")
"""Metrics that are compared request by request, where both sides sent the same."""


@dataclass(frozen=True, slots=True)
class Start:
    """One start of a configuration under one load.

    Attributes:
        requests: Observations with the numbers of their requests, by class and metric.
        values: Numbers by figure.
    """

    cell: CellEntry
    trial: TrialEntry
    requests: Mapping[tuple[str, str], OfRequests] = field(default_factory=dict)
    values: Mapping[Figure, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Measurement:
    """All starts of a configuration under one load.

    Attributes:
        keys: Model, engine, level, variant and load; "" where there is none.
        pooled: Numbers over all starts, with their 95 % intervals.
        n: Observations behind each.
        poor: Findings for which the data is poor, with the metrics that they are about; none for all.
        values_only: Whether there is nothing but values, so that no interval is known.
    """

    keys: tuple[str, ...]
    starts: tuple[Start, ...]
    pooled: Mapping[Figure, Measured]
    n: Mapping[Figure, int]
    poor: tuple[Finding, ...] = ()
    values_only: bool = False

    @property
    def trial(self) -> TrialEntry:
        return self.starts[0].trial

    @property
    def cell(self) -> CellEntry:
        return self.starts[0].cell

    def poor_because(self, metric: str) -> str:
        """Return why the data of a metric is poor, "" if it is not."""
        return next((why for why, about in self.poor if not about or metric in about), "")
