"""Distributions of all repetitions of a load together: as curves, and as a histogram with buckets of equal ratio."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from harness.analysis.columns import ALL
from harness.analysis.distributions import Distribution
from harness.analysis.effective import Size
from harness.analysis.series.clouds import stacked
from harness.analysis.series.curves import CURVES, curves_of
from harness.analysis.stats import Floats, Ints, Ordered, merged
from harness.analysis.summary import Measures

if TYPE_CHECKING:
    import pandas as pd

PER_DECADE = (160, 80, 40, 20, 10, 8, 6, 5, 4, 3, 2, 1)
"""Numbers of buckets to a factor of ten; the first is taken that gives few enough."""
MOST_BUCKETS = 11
_LEAST_MS = 1e-3


@dataclass
class Together:
    """Distributions of one metric as one; names as in `Observations`."""

    runs: Sequence[Distribution]

    @cached_property
    def ordered(self) -> Ordered:
        return merged([run.ordered for run in self.runs])

    def size(self, p: float) -> Size:
        return Size(self.ordered.n, sum(run.size(p).n_eff for run in self.runs))


def pooled(measures: Iterable[Measures]) -> dict[tuple[str, ...], dict[str, pd.DataFrame]]:
    """Return `distribution` (see `curves_of`) and `histogram` of each load on a configuration, by the summary's keys.

    histogram: metric, from_ms, until_ms, n. A last row until infinity counts requests that never ended.
    """
    groups: dict[tuple[str, ...], list[Mapping[str, Distribution]]] = {}
    for one in measures:
        if one.class_name == ALL:
            groups.setdefault(one.keys, []).append(one.distributions)
    return {keys: _frames(runs) for keys, runs in groups.items()}


def _frames(runs: Sequence[Mapping[str, Distribution]]) -> dict[str, pd.DataFrame]:
    found = {name: Together([run[name] for run in runs if name in run]) for name in CURVES}
    known = {name: one for name, one in found.items() if one.runs}
    rows = {name: histogram_of(one.ordered) for name, one in known.items() if one.ordered.n}
    return {"distribution": curves_of(known), "histogram": stacked(rows, ("from_ms", "until_ms", "n"))}


def histogram_of(ordered: Ordered, most: int = MOST_BUCKETS) -> tuple[Floats, Floats, Ints]:
    """Return (from_ms, until_ms, n) of at most `most` buckets of equal ratio, and of one until infinity for the rest.

    Their ends are round on a logarithmic scale, so that histograms of several loads have the same.
    """
    finite = np.isfinite(ordered.values)
    values, counts = np.maximum(ordered.values[finite], _LEAST_MS), ordered.counts()
    edges, n = np.empty(0), np.empty(0, dtype=np.int64)
    if len(values):
        per, places = _places(values, most)
        n = np.bincount(places - places[0], weights=counts[finite]).astype(np.int64)
        edges = 10.0 ** (np.arange(places[0], places[0] + len(n) + 1) / per)
    begins, ends = edges[:-1], edges[1:]
    if rest := int(counts[~finite].sum()):
        begins, ends = np.append(begins, edges[-1:] if len(edges) else [0.0]), np.append(ends, np.inf)
        n = np.append(n, rest)
    return begins, ends, n


def _places(values: Floats, most: int) -> tuple[int, Ints]:
    """Return how many buckets there are to a factor of ten, and the bucket of each value, which ascend."""
    decades = np.log10(values)
    for per in PER_DECADE:
        places = np.floor(per * decades + 1e-9).astype(np.int64)
        if places[-1] - places[0] < most:
            break
    return per, places
