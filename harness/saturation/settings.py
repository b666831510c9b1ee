"""Settings of a search from its load, SLO and limits."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from harness.saturation.requests import requirements_of, tightest_ttft_s
from harness.saturation.search import Settings
from harness.scenario.loads.saturate import Saturate

MOST_RATE = 2000.0  # requests/s that one process sends


def settings_of(
    load: Saturate,
    slo: Mapping[str, float | None],
    limits: Sequence[str],
    classes: Sequence[Mapping[str, float | None]] = (),
) -> Settings:
    """Return the settings of the search that a load asks for. In a shorter search, every part is shorter.

    Args:
        classes: SLO of each class of traffic, instead of `slo`; the tightest bound on TTFT tells a backlog.
    """
    ttft_s, whole_s = tightest_ttft_s(slo, classes), load.within_s
    return Settings(
        requirements_of(load.attainment, limits),
        ttft_s=ttft_s,
        arrivals=load.gaps_variation,
        first_rate=load.first_rate,
        largest_rate=min(load.largest_rate or math.inf, MOST_RATE),
        width=load.width,
        budget_s=load.within_s,
        confirm_s=load.measure_s,
        chunk_s=max(min(20.0, whole_s / 45), 2 * (ttft_s or 0.0)),
        slice_s=min(2.5, whole_s / 360),
        ramp_s=min(10.0, whole_s / 90),
        settle_s=min(8.0, whole_s / 100),
    )
