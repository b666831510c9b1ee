"""Cell samples: the readings of a cell, read once for all of its trials, and of them what each trial can need.

A cell may have hundreds of trials, and to look through all its readings for each would take the square of their number.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from harness.analysis.columns import Ints
from harness.analysis.reading import Reading, StoredTrial
from harness.analysis.server import AROUND_NS

if TYPE_CHECKING:
    import pandas as pd

_GAUGE = ["source", "name", "scope"]


class CellSamples:
    """The samples of one cell after the other: trials of the same cell are to be asked for one behind the other."""

    def __init__(self) -> None:
        self._cell: str | None = None
        self._samples: pd.DataFrame
        self._gauges: list[Ints]

    def around(self, stored: StoredTrial, reading: Reading) -> pd.DataFrame:
        """The cell's samples from AROUND_NS before a trial's T0 until as long after its last event, and of each gauge
        the last before and the first after; in the order in which they are stored.
        """
        if self._cell != stored.cell.id:
            self._cell, self._samples = stored.cell.id, stored.samples()
            self._gauges = rows_by_gauge(self._samples)
        t0_ns = stored.trial.t0_ns
        ended = reading.columns.ended
        if t0_ns is None or not np.isfinite(ended).any():
            return self._samples
        at_ns = self._samples["at_ns"].to_numpy()
        ends_ns = t0_ns - AROUND_NS, t0_ns + int(np.nanmax(ended)) + AROUND_NS
        rows = np.concatenate([*(_between(gauge, at_ns, *ends_ns) for gauge in self._gauges), np.empty(0, np.int64)])
        return self._samples if len(rows) == len(self._samples) else self._samples.take(np.sort(rows))


def rows_by_gauge(samples: pd.DataFrame) -> list[Ints]:
    """The rows of each source, name and scope, in the order of time."""
    gauge = samples.groupby(_GAUGE, sort=False, observed=True).ngroup().to_numpy()
    order = np.lexsort((samples["at_ns"].to_numpy(), gauge))
    ends = np.searchsorted(gauge[order], np.arange(gauge.max(initial=-1) + 2))
    return [order[begin:end] for begin, end in pairwise(ends)]


def _between(rows: Ints, at_ns: Ints, begin_ns: int, end_ns: int) -> Ints:
    """Those in a time, with a neighbour on either side."""
    moments = at_ns[rows]
    first, last = int(np.searchsorted(moments, begin_ns)), int(np.searchsorted(moments, end_ns, side="right"))
    return rows[max(0, first - 1) : last + 1]
