"""Clouds: very many points reduced to few, so that both usual and rare values remain visible."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from harness.analysis.stats import Floats, Ints, quantile

if TYPE_CHECKING:
    import pandas as pd

MAX_DOTS = 300
SHOWN_QUANTILES = (0.0, 0.25, 0.5, 0.75, 1.0)
PARTS = MAX_DOTS // len(SHOWN_QUANTILES)
LEAST_PER_BIN, LEAST_PARTS = 30, 5
LEAST_FOR_P50, LEAST_FOR_P95 = 5, 20


def dots_of(x: Floats, y: Floats) -> Ints:
    """Return which points to draw, x being ascending: all if there are few.

    Of more than MAX_DOTS they are those at SHOWN_QUANTILES of y in each of PARTS equal parts of the range of x.
    """
    if len(x) <= MAX_DOTS:
        return np.arange(len(x))
    picked = []
    for first, last in _slices(x, np.linspace(x[0], x[-1], PARTS + 1)):
        if first == last:
            continue
        wanted = np.unique([int(np.ceil((last - first - 1) * share)) for share in SHOWN_QUANTILES])
        picked.append(first + np.argpartition(y[first:last], wanted)[wanted])
    return np.sort(np.concatenate(picked))


def bins_of(x: Floats, y: Floats, edges: Floats) -> tuple[Floats, Ints, Floats, Floats]:
    """Return x (mean), n, p50 and p95 of y between edges of x, which is ascending; an empty part has x of its middle.

    A quantile is NaN for fewer than LEAST_FOR_P50 or LEAST_FOR_P95 points.
    """
    parts = _slices(x, edges)
    n = np.array([b - a for a, b in parts], dtype=np.int64)
    middles = (edges[1:] + edges[:-1]) / 2
    means = np.array([float(x[a:b].mean()) if b > a else middle for (a, b), middle in zip(parts, middles, strict=True)])
    p50, p95 = (
        np.array([quantile(y[a:b], p) if b - a >= least else np.nan for a, b in parts])
        for p, least in ((0.5, LEAST_FOR_P50), (0.95, LEAST_FOR_P95))
    )
    return means, n, p50, p95


def stacked(parts: Mapping[str, Sequence[NDArray[Any]]], names: Sequence[str]) -> pd.DataFrame:
    """Stack the columns of several metrics in one frame. `names` are those of the columns behind `metric`."""
    import pandas as pd

    if not parts:
        return pd.DataFrame({name: [] for name in ("metric", *names)})
    metrics = [metric for metric, columns in parts.items() for _ in range(len(columns[0]))]
    columns = (np.concatenate(each) for each in zip(*parts.values(), strict=True))
    return pd.DataFrame({"metric": metrics, **dict(zip(names, columns, strict=True))})


def even_edges(x: Floats, most: int = PARTS, least: int = LEAST_PER_BIN) -> Floats:
    """Return edges of equal parts of the range of x with about `least` points each, none for too few points."""
    parts = min(most, len(x) // least)
    return np.linspace(x[0], x[-1], parts + 1) if parts >= LEAST_PARTS else np.empty(0)


def _slices(x: Floats, edges: Floats) -> list[tuple[int, int]]:
    """Return (first, last) indices of the points between edges, those at the last edge included."""
    if not len(edges):
        return []
    begins = np.searchsorted(x, edges)
    begins[-1] = len(x)
    return [(int(a), int(b)) for a, b in pairwise(begins)]
