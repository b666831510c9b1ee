"""Energy of the GPUs in a window, from their counters, or from power where there is none; pure.

A counter is exact at the moment the driver brings it up to date and stands still until the next. So only readings at
which it had changed count (edges): the energy at a moment is interpolated between the edges around it, and lies for
certain between the edge before it and the first that surely came after it. To that the sensor's own error is added,
which no length of the window averages out (Yang et al., SC'24, arXiv 2312.02741: about 5 %).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SENSOR_SHARE = 0.05
MAX_GAP_S = 2.0
MOST_MISSED = 3.0
REFRESHED_S = 30.0
COUNTER = "energy counter of the GPU"
INSTANT = "instant power of the GPU"

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Gauge:
    """Readings of a gauge: moments in ascending order, the value at each, and what each reading took (0 where it is
    not known): the true moment lies within at_s +- width_s / 2.
    """

    at_s: Floats
    values: Floats
    width_s: Floats | float = 0.0

    @property
    def from_s(self) -> Floats:
        """The earliest moments that the values may be of."""
        return self.at_s - np.asarray(self.width_s) / 2

    @property
    def until_s(self) -> Floats:
        """The latest."""
        return self.at_s + np.asarray(self.width_s) / 2

    @property
    def longest_gap_s(self) -> float:
        """How long it may not have been read: MOST_MISSED of its own intervals, but never less than MAX_GAP_S."""
        return max(MAX_GAP_S, MOST_MISSED * float(np.median(np.diff(self.at_s)))) if len(self.at_s) > 1 else MAX_GAP_S

    def between(self, start_s: float, end_s: float) -> Gauge:
        """Those from one moment to another."""
        inside = (self.at_s >= start_s) & (self.at_s <= end_s)
        return self.only(inside)

    def only(self, which: NDArray[np.bool_] | NDArray[np.intp]) -> Gauge:
        """Some of them."""
        return Gauge(self.at_s[which], self.values[which], np.broadcast_to(self.width_s, self.at_s.shape)[which])


@dataclass(frozen=True, slots=True)
class Energy:
    """Joules in a window, between `low` and `high` for certain but for the sensor being off by more than is known."""

    j: float
    low: float
    high: float
    sensor: str

    @property
    def uncertainty_share(self) -> float:
        """The larger distance to an end of the interval, as a share."""
        return max(self.high - self.j, self.j - self.low) / self.j


class NoEnergy(Exception):
    """Why there is no number. broken: a counter that cannot be trusted, not one that was not read.   stale: what was
    read in the window may be from before it.
    """

    def __init__(self, reason: str, *, broken: bool = False, stale: bool = False) -> None:
        super().__init__(reason)
        self.broken, self.stale = broken, stale


def by_counter(counter: Gauge, start_s: float, end_s: float, *, exported: bool = False) -> Energy:
    """The counter's growth over [start_s, end_s]. counter: joules, from before the window until after it; holes in it
    do no harm, for only the ends count.   exported: it was read from a page, which an exporter may bring up to date as
    rarely as every REFRESHED_S (the default of DCGM's).

    Raises NoEnergy: too few readings, none near an end of the window, a counter that stood still or went backwards.
    """
    near = _around(counter, start_s, end_s)
    if len(near.at_s) < 2:
        raise NoEnergy(f"its energy counter was read {len(near.at_s)} times in the window")
    falls = np.flatnonzero(np.diff(near.values) < 0)
    if len(falls):
        before, after = near.values[falls[0]], near.values[falls[0] + 1]
        reason = f"its energy counter went back from {before:.0f} J to {after:.0f} J: the driver or the GPU was reset"
        raise NoEnergy(reason, broken=True)
    rises = np.flatnonzero(np.diff(near.values) > 0) + 1
    if not len(rises) and exported and end_s - start_s < 2 * REFRESHED_S:
        reason = "its page was not brought up to date while the window lasted: start DCGM's exporter with `-c 1000`"
        raise NoEnergy(reason, stale=True)
    if not len(rises):
        raise NoEnergy("its energy counter stood still in the window", broken=True)
    if len(rises) < 2:
        raise NoEnergy("its energy counter was brought up to date only once in the window")
    edges = near.only(rises)
    known_s = near.from_s[rises - 1]  # an edge came after the reading before it
    mean_w = (edges.values[-1] - edges.values[0]) / (edges.at_s[-1] - edges.at_s[0])
    at_start, at_end = (_at(edges, known_s, near, moment_s, mean_w) for moment_s in (start_s, end_s))
    low, high = at_end[0] - at_start[2], at_end[2] - at_start[0]
    return _with_sensor(at_end[1] - at_start[1], max(low, 0.0), high, COUNTER)


def by_power(power: Gauge, averaged_s: float, start_s: float, end_s: float) -> Energy:
    """Power added up over [start_s, end_s]. power: watts.   averaged_s: the time over which the sensor averages.

    What happened between two readings, and in the time the sensor looks back, is known only to lie between the
    smallest and the largest power. Raises NoEnergy where readings are missing.
    """
    near = _around(power, start_s, end_s)
    if len(near.at_s) < 2:
        raise NoEnergy(f"its power was read {len(near.at_s)} times in the window")
    gap_s = float(np.diff(near.at_s).max())
    if gap_s > max(power.longest_gap_s, averaged_s):
        raise NoEnergy(f"its power was not read for {gap_s:.1f} s of the window")
    inner = near.at_s[(near.at_s > start_s) & (near.at_s < end_s)]
    moments = np.concatenate([[start_s], inner, [end_s]])
    watts = np.interp(moments, near.at_s, near.values)
    joules = float(((watts[1:] + watts[:-1]) / 2 * np.diff(moments)).sum())
    spread = float(watts.max() - watts.min())
    edges = spread * (gap_s + averaged_s)
    return _with_sensor(joules, max(joules - edges, 0.0), joules + edges, f"{power_sensor(averaged_s)}, added up")


def power_sensor(averaged_s: float) -> str:
    """What power readings are, in words."""
    return INSTANT if averaged_s == 0 else f"power averaged over {averaged_s:g} s by the GPU"


def together(parts: list[Energy]) -> Energy:
    """Of several GPUs; their errors may all lie on one side."""
    sensor = "; ".join(dict.fromkeys(one.sensor for one in parts))
    return Energy(sum(one.j for one in parts), sum(one.low for one in parts), sum(one.high for one in parts), sensor)


def mean(gauge: Gauge, start_s: float, end_s: float) -> float | None:
    """The mean of a gauge over a window, each reading standing for the time until the next; None without readings."""
    inside = gauge.between(start_s, end_s)
    if not len(inside.at_s):
        return None
    until = np.append(inside.at_s[1:], end_s)
    weights = np.minimum(until - inside.at_s, gauge.longest_gap_s)
    return float(np.average(inside.values, weights=weights)) if weights.sum() > 0 else float(inside.values.mean())


def _around(gauge: Gauge, start_s: float, end_s: float) -> Gauge:
    """The readings in a window and those shortly before and after. Raises NoEnergy where an end was not read."""
    far_s = gauge.longest_gap_s
    near = gauge.between(start_s - far_s, end_s + far_s)
    if len(near.at_s) and near.at_s[0] > start_s + far_s:
        raise NoEnergy(f"it was not read for the first {near.at_s[0] - start_s:.1f} s of the window")
    if len(near.at_s) and near.at_s[-1] < end_s - far_s:
        raise NoEnergy(f"it was not read for the last {end_s - near.at_s[-1]:.1f} s of the window")
    return near


def _at(edges: Gauge, known_s: Floats, near: Gauge, moment_s: float, mean_w: float) -> tuple[float, float, float]:
    """The counter's true value at a moment: at least, about, at most.

    edges: when it had changed, and to what.   known_s: the readings before those, which it came after.
    Beyond the first and the last edge the mean power goes on, and the missing energy may be none or twice as much.
    """
    first, last = (float(edges.at_s[0]), float(edges.values[0])), (float(edges.at_s[-1]), float(edges.values[-1]))
    missing = mean_w * max(first[0] - moment_s, moment_s - last[0], 0.0)
    about = float(np.interp(moment_s, edges.at_s, edges.values))
    about += -missing if moment_s < first[0] else missing
    before, after = edges.until_s <= moment_s, known_s >= moment_s
    if before.any():
        low = float(edges.values[before][-1])
    else:
        low = min(about - missing, float(near.values[0]) if near.at_s[0] <= moment_s else about)
    if after.any():
        high = float(edges.values[after][0])
    else:  # the last edge may have come before the moment, so up to one more may be missing
        high = max(about, last[1]) + missing + mean_w * float(np.median(np.diff(edges.at_s)))
    return min(low, about), about, max(high, about)


def _with_sensor(joules: float, low: float, high: float, sensor: str) -> Energy:
    if joules <= 0:
        raise NoEnergy("no energy was used in the window, says its sensor", broken=True)
    return Energy(joules, low * (1 - SENSOR_SHARE), high * (1 + SENSOR_SHARE), sensor)
