"""A fabricated sweep: levels whose latency grows beyond a rate, and whose speed per user falls with load."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from harness.cli.commands.report import report_data
from harness.results import derive
from reports.data import ReportData
from tests.fabricated import FabricatedTrial, again, cell_entry, noisy, trial_entry
from tests.reports.conftest import manifest

RATES = (1.0, 2.0, 4.0, 8.0, 16.0)
SLO = {"ttft_ms": 200.0, "tpot_ms": 30.0, "e2e_ms": None, "stall_ms": None}


@lru_cache
def sweep_of(*levels: str, seconds: float = 60.0, rates: Sequence[float] = RATES, **changes: Any) -> ReportData:
    """A run of these levels at each rate; each is faster than the one before, and slows down with the rate.

    Args:
        changes: Keys of every trial's entry.
    """
    cells, trials = [], []
    for number, level in enumerate(levels):
        cell = cell_entry(id=f"{number:03}", index=number, level=level)
        own = [
            FabricatedTrial(
                cell,
                trial_entry(
                    id=f"{place:03}", index=place, load=f"sustained-rate-{rate:g}", end_s=seconds, slo=SLO, **changes
                ),
                noisy(place, round(seconds * rate), every_ms=1000 / rate, slower=(1 + (rate / 8) ** 2) * 0.8**number),
            )
            for place, rate in enumerate(rates)
        ]
        cells.append(again(cell, trials=[one.trial for one in own]))
        trials += own
    return report_data(derive(manifest(cells), trials))
