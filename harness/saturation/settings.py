"""Settings of a search from its load, SLO and limits."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from harness.saturation.requests import requirements_of
from harness.saturation.search import Settings
from harness.scenario.loads.saturate import Saturate

MOST_RATE = 2000.0  # requests/s that one process sends


def settings_of(load: Saturate, slo: Mapping[str, float | None], limits: Sequence[str]) -> Settings:
    """Return the settings of the search that a load asks for. In a shorter search, every part is shorter."""
    ttft_ms, whole_s = slo.get("ttft_ms"), load.within_s
    return Settings(
        requirements_of(load.attainment, limits),
        ttft_s=None if ttft_ms is None else ttft_ms / 1e3,
        arrivals=load.gaps_variation,
        first_rate=load.first_rate,
        largest_rate=min(load.largest_rate or math.inf, MOST_RATE),
        width=load.width,
        budget_s=load.within_s,
        confirm_s=load.measure_s,
        chunk_s=max(min(20.0, whole_s / 45), 2 * (ttft_ms or 0.0) / 1e3),
        slice_s=min(2.5, whole_s / 360),
        ramp_s=min(10.0, whole_s / 90),
        settle_s=min(8.0, whole_s / 100),
    )
