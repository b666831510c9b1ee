"""Scales of axes: fixed ends and few ticks at round values, since a search for ticks is most of a plot's time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from reports.format import grouped
from reports.plots.marks import Floats

if TYPE_CHECKING:
    from matplotlib.axis import XAxis, YAxis

    Axis = XAxis | YAxis

SHARES = (0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999, 0.9999, 0.99999)
MOST_MARKS = 8
FAR = 0.5
ROOM, LEAST_ROOM = 0.15, 0.005


def linear(axis: Axis, low: float, high: float, most: int = 6) -> None:
    """Set an even scale; widen an empty range."""
    if not high > low:
        high = low + (abs(low) or 1.0)
    _fix(axis, "linear", low, high, even(low, high, most))


def from_zero(axis: Axis, high: float, most: int = 6) -> None:
    """Set an even scale from 0, with some room above the maximum."""
    linear(axis, 0.0, high * 1.06 if high > 0 else 1.0, most)


def logarithmic(axis: Axis, low: float, high: float, most: int = MOST_MARKS) -> None:
    """Set a logarithmic scale; `low` is above zero."""
    if not high > low:
        low, high = low / 2, low * 2
    _fix(axis, "log", low, high, decades(low, high, most))


def upright(axis: Axis, least: float, greatest: float, steep: float) -> None:
    """Set a scale from 0; a logarithmic one if the maximum is more than `steep` times the minimum."""
    if least > 0 and greatest > steep * least:
        logarithmic(axis, least / 1.2, greatest * 1.25, 5)
    else:
        from_zero(axis, greatest, 5)


def beginning(least: float, greatest: float) -> float:
    """Return the beginning of an even axis: 0, unless all values would lie in its upper part."""
    if least < FAR * greatest:
        return 0.0
    return max(0.0, least - ROOM * (greatest - least) - LEAST_ROOM * greatest)


def around(axis: Axis, least: float, greatest: float, most: int = 6) -> None:
    """Set an even scale from `beginning` on, with the same room above the maximum."""
    begin = beginning(least, greatest)
    above = least - begin if begin > 0 else greatest * 0.06
    linear(axis, begin, greatest + above if greatest > 0 else 1.0, most)


def of_shares(axis: Axis, lowest: float, most: int) -> float:
    """Set a scale of quantiles, straight for a normal distribution; return its end, which `most` observations allow."""
    from scipy.special import ndtr

    top = 1 - 0.5 / max(most, 20)
    shown = [share for share in SHARES if lowest <= share <= top + 1e-9]
    _fix(axis, "function", lowest, top, shown, map(share_name, shown), functions=(deviations, ndtr))
    return top


def share_name(share: float) -> str:
    """Return 0.999 as "p99.9"."""
    return f"p{share * 100:.10g}"


def plain(value: float) -> str:
    """Return the text of a tick."""
    return f"{value:.0e}" if abs(value) >= 1e7 or 0 < abs(value) < 1e-4 else grouped(f"{value:.10g}")


def even(low: float, high: float, most: int) -> list[float]:
    """Return round numbers evenly apart, at most one more than `most`."""
    from matplotlib.ticker import MaxNLocator

    found = MaxNLocator(nbins=most, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
    return _within(dict.fromkeys(round(float(mark), 12) for mark in found), low, high)


def decades(low: float, high: float, most: int) -> list[float]:
    """Return round numbers of each power of ten, at most `most`; evenly spaced ones if few are left."""
    from matplotlib.ticker import LogLocator

    choices = (
        _within(LogLocator(subs=steps, numticks=most).tick_values(low, high), low, high)
        for steps in ((1, 1.5, 2, 3, 4, 5, 7), (1, 2, 5), (1, 3), (1,))
    )
    marks = next((choice for choice in choices if len(choice) <= most), [])
    return marks if len(marks) > 2 else [mark for mark in even(low, high, most - 2) if mark > 0] or marks


def deviations(shares: ArrayLike) -> Floats:
    """Return quantiles of the standard normal distribution."""
    from scipy.special import ndtri

    found: Floats = ndtri(np.clip(shares, 1e-9, 1 - 1e-9))
    return found


def _within(marks: Iterable[float], low: float, high: float) -> list[float]:
    room = (high - low) * 1e-9
    return [float(mark) for mark in marks if low - room <= mark <= high + room]


def _fix(
    axis: Axis, kind: str, low: float, high: float, marks: Sequence[float], names: Iterable[str] = (), **how: Any
) -> None:
    from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

    axes, x = axis.axes, axis.axis_name == "x"
    if kind != "linear":
        (axes.set_xscale if x else axes.set_yscale)(kind, **how)
    axis.set_major_locator(FixedLocator(marks))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FixedFormatter(list(names) or [plain(mark) for mark in marks]))
    (axes.set_xlim if x else axes.set_ylim)(low, high)
