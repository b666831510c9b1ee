"""Curves: the distribution of a latency, its usual quantiles in words and as a table."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from reports.format import amount, interval
from reports.tables import Cell, Table
from reports.ticks import SHARES, share_name

if TYPE_CHECKING:
    import pandas as pd

Floats = NDArray[np.float64]

NO_INTERVAL = "seen; too few for an interval"


@dataclass(frozen=True, slots=True)
class Curve:
    """An inverse CDF. share: ascending.   ms: the quantiles.   low, high: their intervals, NaN where there is none.
    n: observations, of which those that never ended are beyond the last share.
    """

    label: str
    share: Floats
    ms: Floats
    low: Floats
    high: Floats
    n: int

    @classmethod
    def of(cls, label: str, frame: pd.DataFrame) -> Curve:
        """Of rows with the columns share, ms, low_ms, high_ms, n."""
        share, ms, low, high = (frame[name].to_numpy(dtype=np.float64) for name in ("share", "ms", "low_ms", "high_ms"))
        return cls(label, share, ms, low, high, int(frame["n"].iloc[0]))

    def place(self, share: float) -> int | None:
        """Where a quantile stands; None where it is censored or no request of so few is that rare."""
        at = int(np.searchsorted(self.share, share - 1e-9))
        return at if at < len(self.share) and min(share, 1 - share) * self.n >= 1 else None

    def known(self, share: float) -> bool:
        """Whether a quantile has an interval."""
        at = self.place(share)
        return at is not None and math.isfinite(self.low[at]) and math.isfinite(self.high[at])

    def cell(self, share: float) -> Cell:
        """A quantile in a table, with its interval; empty where there is none."""
        at = self.place(share)
        if at is None:
            return Cell("")
        value, low, high = float(self.ms[at]), float(self.low[at]), float(self.high[at])
        detail = interval({"value": value, "low": low, "high": high, "bound": "point"})
        return Cell(amount(value, low, high), detail or ("" if self.known(share) else NO_INTERVAL), value=value)

    def words(self) -> str:
        """The median and the highest usual quantile that has an interval."""
        highest = next((share for share in (0.99, 0.95, 0.9) if self.known(share)), None)
        named = [share for share in (0.5, highest) if share is not None and self.place(share) is not None]
        found = [f"{share_name(share)} {self.cell(share).text} ms" for share in named]
        return f"{self.label} {' and '.join(found) or 'too few for a quantile'}"


def curves_table(curves: Sequence[Curve]) -> Table:
    """The usual quantiles of each curve."""
    lines = [(Cell(share_name(share)), *(curve.cell(share) for curve in curves)) for share in SHARES]
    rows = [line for line in lines if any(cell.text for cell in line[1:])]
    observed = (Cell("observations"), *(Cell(str(curve.n)) for curve in curves))
    return Table("", ("quantile", *(f"{curve.label}, ms" for curve in curves)), [*rows, observed])
