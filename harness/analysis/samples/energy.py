"""Energy of the GPUs in a window, from their counters, or from power readings if there are none.

A counter is exact when the driver updates it, and constant until the next update. So only readings at which it had
changed count (edges). The energy at a moment is interpolated between the edges around it. For certain it lies between
the edge before and the first that surely came after. The sensor's own error is added: about 5 %, which no length of the
window averages out (Yang et al., SC'24, arXiv 2312.02741).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from harness.analysis.columns import NS_PER_S
from harness.analysis.rates import Rate
from harness.analysis.samples.gauges import NO_GPU, SERVER, engines_gpus, without_others_gpus
from harness.analysis.stats import Estimate, Flags, Floats
from harness.analysis.window import Window
from harness.metrics import ENERGY
from harness.store.manifest import CellEntry, TrialEntry

if TYPE_CHECKING:
    import pandas as pd

SENSOR_SHARE = 0.05
MAX_GAP_S = 2.0
MOST_MISSED = 3.0
REFRESHED_S = 30.0
UNKNOWN_AVERAGED_S = 1.0
COUNTER = "energy counter of the GPU"
INSTANT = "instant power of the GPU"


@dataclass(frozen=True, slots=True)
class Gauge:
    """Readings of a gauge in the order of time. The true moment of each lies within at_s +- width_s / 2."""

    at_s: Floats
    values: Floats
    width_s: Floats | float = 0.0

    @property
    def longest_gap_s(self) -> float:
        """The longest time without a reading: MOST_MISSED of its intervals, at least MAX_GAP_S."""
        return max(MAX_GAP_S, MOST_MISSED * float(np.median(np.diff(self.at_s)))) if len(self.at_s) > 1 else MAX_GAP_S

    def between(self, start_s: float, end_s: float) -> Gauge:
        return self.only((self.at_s >= start_s) & (self.at_s <= end_s))

    def only(self, which: NDArray[np.bool_] | NDArray[np.intp]) -> Gauge:
        return Gauge(self.at_s[which], self.values[which], np.broadcast_to(self.width_s, self.at_s.shape)[which])


@dataclass(frozen=True, slots=True)
class Energy:
    """Joules in a window, between `low` and `high` for certain unless the sensor's error is larger than known."""

    j: float
    low: float
    high: float
    sensor: str

    @property
    def uncertainty_share(self) -> float:
        """The larger distance to an end of the interval, as a share."""
        return max(self.high - self.j, self.j - self.low) / self.j


class NoEnergy(Exception):
    """Raised with the reason why there is no number: a `broken` counter, `stale` readings, or too few."""

    def __init__(self, reason: str, *, broken: bool = False, stale: bool = False) -> None:
        super().__init__(reason)
        self.broken, self.stale = broken, stale


def by_counter(counter: Gauge, start_s: float, end_s: float, *, exported: bool = False) -> Energy:
    """Return the growth of a counter of joules over [start_s, end_s].

    Gaps between its readings are harmless, since only the ends count. `exported` readings are from a page, which an
    exporter may update as rarely as every REFRESHED_S (the default of DCGM's).

    Raises:
        NoEnergy: too few readings, none near an end of the window, or a counter that stood still or went backwards.
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
    known_s = (near.at_s - near.width_s / 2)[rises - 1]  # an edge came after the reading before it
    mean_w = (edges.values[-1] - edges.values[0]) / (edges.at_s[-1] - edges.at_s[0])
    at_start, at_end = (_at(edges, known_s, near, moment_s, mean_w) for moment_s in (start_s, end_s))
    low, high = at_end[0] - at_start[2], at_end[2] - at_start[0]
    return _with_sensor(at_end[1] - at_start[1], max(low, 0.0), high, COUNTER)


def by_power(power: Gauge, averaged_s: float, start_s: float, end_s: float) -> Energy:
    """Integrate power in watts over [start_s, end_s]. The sensor averages over `averaged_s`.

    Between two readings, and within the time the sensor averages, only the smallest and largest power are known.

    Raises:
        NoEnergy: readings are missing.
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
    edges = float(watts.max() - watts.min()) * (gap_s + averaged_s)
    return _with_sensor(joules, max(joules - edges, 0.0), joules + edges, f"{power_sensor(averaged_s)}, added up")


def power_sensor(averaged_s: float) -> str:
    """Return the kind of power readings in words."""
    return INSTANT if averaged_s == 0 else f"power averaged over {averaged_s:g} s by the GPU"


def together(parts: list[Energy]) -> Energy:
    """Add up several GPUs; their errors may all lie on one side."""
    sensor = "; ".join(dict.fromkeys(one.sensor for one in parts))
    return Energy(sum(one.j for one in parts), sum(one.low for one in parts), sum(one.high for one in parts), sensor)


def mean(gauge: Gauge, start_s: float, end_s: float) -> float | None:
    """Return the mean of a gauge over a window, None if not read; each reading stands for the time until the next."""
    inside = gauge.between(start_s, end_s)
    if not len(inside.at_s):
        return None
    until = np.append(inside.at_s[1:], end_s)
    weights = np.minimum(until - inside.at_s, gauge.longest_gap_s)
    return float(np.average(inside.values, weights=weights)) if weights.sum() > 0 else float(inside.values.mean())


def _around(gauge: Gauge, start_s: float, end_s: float) -> Gauge:
    """Return the readings in a window and shortly before and after it. Raises NoEnergy if an end was not read."""
    far_s = gauge.longest_gap_s
    near = gauge.between(start_s - far_s, end_s + far_s)
    if len(near.at_s) and near.at_s[0] > start_s + far_s:
        raise NoEnergy(f"it was not read for the first {near.at_s[0] - start_s:.1f} s of the window")
    if len(near.at_s) and near.at_s[-1] < end_s - far_s:
        raise NoEnergy(f"it was not read for the last {end_s - near.at_s[-1]:.1f} s of the window")
    return near


def _at(edges: Gauge, known_s: Floats, near: Gauge, moment_s: float, mean_w: float) -> tuple[float, float, float]:
    """Return the counter's true value at a moment: at least, about, at most.

    `edges` are its changes, and `known_s` the times of the readings before those. Beyond the first and the last edge
    the mean power goes on, and the missing energy may be none or twice as much.
    """
    first_s, last_s = float(edges.at_s[0]), float(edges.at_s[-1])
    missing = mean_w * max(first_s - moment_s, moment_s - last_s, 0.0)
    about = float(np.interp(moment_s, edges.at_s, edges.values))
    about += -missing if moment_s < first_s else missing
    before, after = edges.at_s + edges.width_s / 2 <= moment_s, known_s >= moment_s
    earliest = float(near.values[0]) if near.at_s[0] <= moment_s else about
    low = float(edges.values[before][-1]) if before.any() else min(about - missing, earliest)
    if after.any():
        high = float(edges.values[after][0])
    else:  # the last edge may have come before the moment, so up to one more may be missing
        high = max(about, float(edges.values[-1])) + missing + mean_w * float(np.median(np.diff(edges.at_s)))
    return min(low, about), about, max(high, about)


def _with_sensor(joules: float, low: float, high: float, sensor: str) -> Energy:
    if joules <= 0:
        raise NoEnergy("its sensor reports that no energy was used in the window", broken=True)
    return Energy(joules, low * (1 - SENSOR_SHARE), high * (1 + SENSOR_SHARE), sensor)


def energy_facts(cell: CellEntry, trial: TrialEntry, window: Window, samples: pd.DataFrame) -> dict[str, Any]:
    """Return the energy of the engine's GPUs in the window (see `without_others_gpus`); empty if no GPU was read.

    j, low, high: joules, None without a number.   seconds: of the window.   sensor: source of the joules.
    uncertainty_share.   power_w: mean of the power readings, added up.   power_sensor: source of those.
    utilisation_share: mean.   gpus: per GPU {gpu, j, power_w, utilisation_share, reason}.   reason: why there is no
    number, or a note about it.   broken: a counter is wrong.
    """
    gauges = _gauges(cell, trial, samples)
    if not gauges:
        return {}
    entries, parts, broken = [], [], False
    ends_s = window.start_ns / NS_PER_S, window.end_ns / NS_PER_S
    exported = cell.sampler is not None and cell.sampler.scope != SERVER  # this machine is not the server's
    for gpu, read in gauges.items():
        entry, found, failed = _of_one(gpu, read, *ends_s, exported=exported)
        entries.append(entry)
        parts += [found] if found else []
        broken = broken or failed
    total = together(parts) if len(parts) == len(entries) else None
    powers = [entry["power_w"] for entry in entries]
    busy = [entry["utilisation_share"] for entry in entries]
    averaged = [_averaged_s(read) for read in gauges.values() if "power_w" in read]
    return {
        "j": total.j if total else None,
        "low": total.low if total else None,
        "high": total.high if total else None,
        "seconds": window.seconds,
        "sensor": total.sensor if total else None,
        "uncertainty_share": total.uncertainty_share if total else None,
        "power_w": None if None in powers else sum(powers),
        "power_sensor": power_sensor(max(averaged)) if averaged else None,
        "utilisation_share": None if None in busy else sum(busy) / len(busy),
        "gpus": entries,
        "reason": _reason(cell, trial, entries, samples),
        "broken": broken,
    }


def _of_one(
    gpu: str, read: Mapping[str, Gauge], start_s: float, end_s: float, *, exported: bool
) -> tuple[dict[str, Any], Energy | None, bool]:
    """Return a GPU's entry, its energy, and whether its counter is broken."""
    entry: dict[str, Any] = {"gpu": gpu, "j": None, "reason": None}
    for name in ("power_w", "utilisation_share"):
        entry[name] = mean(read[name], start_s, end_s) if name in read else None
    try:
        found = _energy(read, start_s, end_s, exported=exported)
    except NoEnergy as error:
        if error.stale:
            entry |= {"power_w": None, "utilisation_share": None}
        return entry | {"reason": f"{gpu}: {error}"}, None, error.broken
    return entry | {"j": found.j}, found, False


def energy_readings(
    facts: Mapping[str, Any] | None, rates: Mapping[str, Rate], shares: Mapping[str, Flags]
) -> dict[str, float | Estimate]:
    """Return the metrics of energy that are known, from a trial's facts and its requests' rates and shares."""
    energy = (facts or {}).get("energy") or {}
    named = {"gpu_power_w": "power_w", "gpu_utilisation_share": "utilisation_share"}
    found: dict[str, float | Estimate] = {
        metric: energy[name] for metric, name in named.items() if energy.get(name) is not None
    }
    if energy.get("j") is None:
        return found
    tokens = rates["output_tokens_per_s"]
    amounts = {
        "energy_j": 1.0,
        "energy_j_per_output_token": 0.0 if tokens.at_least else tokens.amount,
        "energy_j_per_good_request": float(shares["goodput"].sum()) if "goodput" in shares else 0.0,
    }
    for metric, amount in amounts.items():
        if amount > 0:
            found[metric] = Estimate(energy["j"] / amount, energy["low"] / amount, energy["high"] / amount, n=1)
    return found


def energy_sources(facts: Mapping[str, Any] | None) -> dict[str, str]:
    """Return the sensor of each metric of energy, for the summary's column `source`."""
    energy = (facts or {}).get("energy") or {}
    named = {metric.name: str(energy.get("sensor") or "") for metric in ENERGY if metric.name.startswith("energy")}
    return named | {"gpu_power_w": str(energy.get("power_sensor") or ""), "gpu_utilisation_share": "gpu"}


def missing_energy(energy: Mapping[str, Any], slo: Mapping[str, float | None], no_gpu: str = NO_GPU) -> dict[str, str]:
    """Return why a metric of energy may have no value. `no_gpu`: why no GPU counts, if none does."""
    of_energy = [metric.name for metric in ENERGY]
    if not energy or energy["j"] is None:
        return dict.fromkeys(of_energy, energy["reason"] if energy else no_gpu)
    found = dict.fromkeys(of_energy, "the GPU does not report it")
    found["energy_j_per_output_token"] = "no output token arrived in the window, or some were not counted"
    no_slo = not any(limit is not None for limit in slo.values())
    found["energy_j_per_good_request"] = "the scenario sets no slo" if no_slo else "no request was good"
    return found


def _gauges(cell: CellEntry, trial: TrialEntry, samples: pd.DataFrame) -> dict[str, dict[str, Gauge]]:
    """Return the gauges of each of the engine's GPUs by name, in seconds from T0."""
    t0_ns = trial.t0_ns
    if t0_ns is None or not any(str(source).startswith("gpu") for source in samples["source"].unique()):
        return {}
    samples = without_others_gpus(cell, samples)
    names = ["energy_j", "power_w", "power_averaged_s", "utilisation_share"]
    of_gpu = samples["source"].astype(str).str.startswith("gpu") & (samples["scope"] == SERVER)
    own = samples[of_gpu & samples["name"].isin(names)].sort_values("at_ns", kind="stable")
    found: dict[str, dict[str, Gauge]] = {}
    for (source, name), readings in own.groupby([own["source"].astype(str), own["name"].astype(str)], sort=True):
        at_s = (readings["at_ns"].to_numpy(dtype=np.int64) - t0_ns) / NS_PER_S
        values, width_ns = (readings[column].to_numpy(dtype=np.float64) for column in ("value", "width_ns"))
        found.setdefault(str(source), {})[str(name)] = Gauge(at_s, values, width_ns / NS_PER_S)
    return found


def _energy(read: Mapping[str, Gauge], start_s: float, end_s: float, *, exported: bool) -> Energy:
    if end_s <= start_s:
        raise NoEnergy("nothing was measured")
    if "energy_j" in read:
        return by_counter(read["energy_j"], start_s, end_s, exported=exported)
    if "power_w" not in read:
        raise NoEnergy("it reports neither energy nor power")
    return by_power(read["power_w"], _averaged_s(read), start_s, end_s)


def _averaged_s(read: Mapping[str, Gauge]) -> float:
    """Return the time over which power readings average; a second if it was not read, as with exporters."""
    known = read.get("power_averaged_s")
    return float(known.values.max()) if known is not None else UNKNOWN_AVERAGED_S


def _reason(cell: CellEntry, trial: TrialEntry, each: list[dict[str, Any]], samples: pd.DataFrame) -> str | None:
    without = [str(entry["reason"]) for entry in each if entry["reason"]]
    if without:
        return "; ".join(without)
    if trial.others_on_gpus:
        return "other processes computed on the GPUs: what they used is in it"
    if len(each) > 1 and not cell.devices and not engines_gpus(samples):
        unknown = "it is not known which GPUs the engine uses"
        return f"{unknown}: all {len(each)} that were read are in it; name its own in `devices`"
    return None
