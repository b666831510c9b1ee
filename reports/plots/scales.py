"""Scales of axes: their ends, few marks at round values, and what a reader must know about them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from reports.format import grouped
from reports.plots.marks import Floats

if TYPE_CHECKING:
    from matplotlib.axis import XAxis, YAxis
    from matplotlib.ticker import Locator

SHARES = (0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999, 0.9999, 0.99999)
MOST_MARKS = 5
ROOM = 0.06
FAR = 0.5
STEEP = 15.0
_DECADES_WITH_THREE_MARKS = 2.7


@dataclass(frozen=True, slots=True)
class Scale:
    """Ends of an axis.

    Attributes:
        kind: "linear", "log", or "shares", on which a normal distribution is a straight line.
        most: Number of marks, at most.
        marks: Names of marks by their value; empty for round values.
    """

    low: float
    high: float
    kind: str = "linear"
    most: int = MOST_MARKS
    marks: Mapping[float, str] = field(default_factory=dict)

    @property
    def remark(self) -> str:
        """Return the remark on an unusual axis; "" for an even one from 0."""
        if self.kind == "log":
            return "logarithmic"
        return f"axis begins at {plain(float(f'{self.low:.3g}'))}" if self.kind == "linear" and self.low > 0 else ""

    def put_on(self, axis: XAxis | YAxis) -> None:
        """Give an axis these ends and marks."""
        from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

        set_scale = axis.axes.set_xscale if axis.axis_name == "x" else axis.axes.set_yscale
        set_ends = axis.axes.set_xlim if axis.axis_name == "x" else axis.axes.set_ylim
        if self.kind != "linear":
            set_scale(*_scale_of(self.kind))
        axis.set_major_locator(FixedLocator(list(self.marks)) if self.marks else self._round_marks())
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(FuncFormatter(lambda value, _: self.marks.get(value) or plain(value)))
        set_ends(self.low, self.high)

    def _round_marks(self) -> Locator:
        from matplotlib.ticker import LogLocator, MaxNLocator

        decades = math.log10(self.high / self.low) if self.kind == "log" else 0.0
        if decades < 1:
            return MaxNLocator(nbins=self.most, steps=[1, 2, 2.5, 5, 10])
        return LogLocator(subs=(1, 2, 5) if decades < _DECADES_WITH_THREE_MARKS else (1,), numticks=2 * self.most)


def between(low: float, high: float, most: int = MOST_MARKS) -> Scale:
    """Return an even scale; an empty range is widened."""
    return Scale(low, high if high > low else low + (abs(low) or 1.0), most=most)


def from_zero(values: Iterable[float], most: int = MOST_MARKS) -> Scale:
    """Return an even scale from 0, with some room above the largest finite value."""
    return between(0.0, max(_finite(values), default=0.0) * (1 + ROOM) or 1.0, most)


def near(values: Iterable[float], most: int = MOST_MARKS, room: float = ROOM) -> Scale:
    """Return an even scale from 0, or from below the values if all lie far from 0; `room`: at both ends, of the range.

    Its beginning is round, because it is said.
    """
    found = _finite(values)
    least, greatest = min(found, default=0.0), max(found, default=0.0)
    beside = max(room * (greatest - least), 0.02 * greatest)
    if least <= FAR * greatest:
        return from_zero([greatest + beside], most)
    step = 10.0 ** math.floor(math.log10(max(beside, 1e-12)))
    return between(max(0.0, math.floor((least - beside) / step) * step), greatest + beside, most)


def logarithmic(values: Iterable[float], most: int = MOST_MARKS) -> Scale:
    """Return a logarithmic scale of the positive values."""
    found = [value for value in _finite(values) if value > 0]
    low, high = min(found, default=1.0), max(found, default=10.0)
    return Scale(low / 1.15, max(high * 1.15, low * 1.5), "log", most)


def upright(values: Iterable[float], most: int = MOST_MARKS, steep: float = STEEP) -> Scale:
    """Return a scale from 0; a logarithmic one if the largest value is more than `steep` times the least."""
    found = _finite(values)
    wide = min(found, default=0.0) > 0 and max(found) > steep * min(found)
    return logarithmic(found, most) if wide else from_zero(found, most)


def shares(lowest: float, observations: int) -> Scale:
    """Return a scale of quantiles from `lowest` to the last that so many observations have."""
    top = 1 - 0.5 / max(observations, 20)
    shown = [share for share in SHARES if lowest <= share <= top + 1e-9]
    return Scale(lowest, top, "shares", marks={share: share_name(share) for share in shown})


def share_name(share: float) -> str:
    """Return 0.999 as "p99.9"."""
    return f"p{share * 100:.10g}"


def plain(value: float) -> str:
    """Return the text of a mark."""
    return f"{value:.0e}" if abs(value) >= 1e7 or 0 < abs(value) < 1e-4 else grouped(f"{value:.10g}")


def deviations(shares: ArrayLike) -> Floats:
    """Return quantiles of the standard normal distribution."""
    from scipy.special import ndtri

    found: Floats = ndtri(np.clip(shares, 1e-9, 1 - 1e-9))
    return found


def _scale_of(kind: str) -> tuple[Any, ...]:
    if kind == "log":
        return ("log",)
    from matplotlib.scale import FuncScale
    from scipy.special import ndtr

    functions: Any = (deviations, ndtr)
    return (FuncScale(None, functions),)


def _finite(values: Iterable[float]) -> list[float]:
    return [float(value) for value in values if math.isfinite(value)]
