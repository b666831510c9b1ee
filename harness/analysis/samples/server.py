"""Reports of a server on its metrics pages: queue, cache and counters over the measurement window."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.analysis.columns import NS_PER_MS
from harness.analysis.samples.gauges import AROUND_NS
from harness.analysis.samples.machine import LEAST_COVERED
from harness.analysis.stats import Floats, Ints
from harness.store.categories import one_of
from harness.store.manifest import TrialEntry
from harness.telemetry.prometheus.names import COUNTERS, GAUGES, NO_KNOWN_NAME

if TYPE_CHECKING:
    import pandas as pd

    from harness.analysis.reading import Reading

AT_THE_END_NS = 100_000_000
FAR_NS = 2_500_000_000
LAST_READING_NS = 200_000_000  # see `run.child.LAST_READING_S`
PEAKS = frozenset({"kv_cache_peak_share"})
_FROM_PAIRS = {
    "prefix_hit_share": ("prefix_hits_tokens", "prefix_queries_tokens", 1.0),
    "queue_time_ms_mean": ("queue_time_s", "queue_time_count", 1e3),
}
_OF_PAIRS = {name for *names, _ in _FROM_PAIRS.values() for name in names}
_METRICS = {
    "server_running_mean": ("running_requests", "mean"),
    "server_waiting_mean": ("waiting_requests", "mean"),
    "kv_cache_peak_share": ("kv_cache_share", "max"),
    "prefix_hit_share": ("prefix_hit_share", None),
    "preemptions": ("preemptions", None),
    "server_queue_ms_mean": ("queue_time_ms_mean", None),
}
NAMES = tuple(_METRICS)
SELDOM = "the page was not read for more than half of the window"


def server_facts(reading: Reading, samples: pd.DataFrame) -> dict[str, Any]:
    """Return the facts under `server`, JSON-able.

    pages: of each page url, source, kind, scrapes, failures, ms_per_scrape, ms_per_reading, reason.
    window: of gauges {mean, max}, of counters the increase over the window, prefix_hit_share, queue_time_ms_mean;
    unknown ones are absent.   ends: how the counters were read at its start and end, see `_AtEnd`.
    notes: sentences about problems.   seldom: gauges that were read for too little of the window.
    reason: why there is nothing at all, else None.
    """
    trial = reading.trial
    pages = [page.model_dump(exclude_unset=True) for page in trial.pages or ()]
    own = _of_the_trial(samples, trial, reading)
    if not len(own):
        nothing = {"pages": pages, "window": {}, "ends": {}, "notes": [], "seldom": []}
        return nothing | {"reason": _why_nothing(trial, pages)}
    window = _window_of(reading)
    found: dict[str, Any] = {name: values for name in GAUGES if (values := _gauge(own, name, window)) is not None}
    seldom = [name for name in GAUGES if name not in found and (own["name"] == name).any()]
    increases, ends, notes = _increases(own, window)
    found |= increases
    for name, (amount, per, unit) in _FROM_PAIRS.items():
        if found.get(per) and amount in found:
            found[name] = found[amount] / found[per] * unit
    found = {name: value for name, value in found.items() if name not in _OF_PAIRS}
    notes += [f"The server's gauges are not known: {SELDOM}."] if seldom else []
    reason = None if found else SELDOM if seldom else "no page was read within the window"
    return {"pages": pages, "window": found, "ends": ends, "notes": notes, "seldom": seldom, "reason": reason}


def server_readings(facts: Mapping[str, Any] | None) -> dict[str, float]:
    """Return the metrics among the facts of a trial that are known."""
    window = ((facts or {}).get("server") or {}).get("window") or {}
    found = {}
    for metric, (name, part) in _METRICS.items():
        if window.get(name) is not None:
            found[metric] = float(window[name] if part is None else window[name][part])
    return found


def why_missing(server: Mapping[str, Any]) -> dict[str, str]:
    """Return why absent metrics of `server_readings` have no value."""
    if server["reason"]:
        return dict.fromkeys(_METRICS, server["reason"])
    window = server["window"]
    found = dict.fromkeys(_METRICS, "the server's page does not report it")
    if any("fell" in note for note in server["notes"]):
        found |= {name: server["notes"][0] for name, (_, part) in _METRICS.items() if part is None}
    elif window.get("finished_requests") == 0:
        found["server_queue_ms_mean"] = "no request ended in the window by the server's count"
    found |= {name: SELDOM for name, (gauge, _) in _METRICS.items() if gauge in (server.get("seldom") or ())}
    return {name: why for name, why in found.items() if _METRICS[name][0] not in window}


@dataclass(frozen=True, slots=True)
class _Window:
    """The window in absolute times."""

    start_ns: int
    end_ns: int
    idle_from_ns: int | None  # since when, before it, no request was sent to the server; None if one was
    idle_until_ns: int | None  # until when, after it


def _window_of(reading: Reading) -> _Window:
    """Return the window of a trial; a load that comes up before it or goes on after it leaves no idle time there."""
    trial, columns, window = reading.trial, reading.columns, reading.window
    after = None if trial.ended_ns is None else trial.ended_ns + LAST_READING_NS
    busy_before = (columns.times["sent"] < window.start_ns).any()
    busy_after = (columns.ended > window.end_ns).any()
    start_ns, end_ns = ((trial.t0_ns or 0) + round(ns) for ns in (window.start_ns, window.end_ns))
    return _Window(start_ns, end_ns, None if busy_before else trial.begun_ns, None if busy_after else after)


def _of_the_trial(samples: pd.DataFrame, trial: TrialEntry, reading: Reading) -> pd.DataFrame:
    """Return the readings of servers from shortly before the window until shortly after, in the order of time."""
    own = samples[one_of(samples["source"], servers_in(samples))]
    if trial.t0_ns is None or not len(own):
        return own.iloc[:0]
    at = own["at_ns"] - trial.t0_ns
    near = (at >= reading.window.start_ns - AROUND_NS) & (at <= reading.window.end_ns + AROUND_NS)
    found: pd.DataFrame = own[near].sort_values("at_ns", kind="stable")
    return found


def servers_in(samples: pd.DataFrame) -> list[str]:
    """Return the sources that are pages of servers."""
    return sorted(source for source in map(str, samples["source"].unique()) if re.fullmatch(r"server\d+", source))


def _gauge(own: pd.DataFrame, name: str, window: _Window) -> dict[str, float] | None:
    """Return the mean over the time of the window, and the largest reading.

    Over several servers requests add up, shares are averaged. None if readings stand for less than half of the window.
    """
    chosen = own[one_of(own["name"], [name])]
    if not len(chosen):
        return None
    together = _together(chosen, window, average=name.endswith("_share"))
    at, values = together.index.to_numpy(dtype=np.float64), together.to_numpy(dtype=np.float64)
    if not len(at) or window.end_ns <= window.start_ns:
        return None
    # Each reading stands for the time that it is the nearest to, and for FAR_NS at most: later values are unknown.
    middles = (at[1:] + at[:-1]) / 2
    begins = np.maximum(np.concatenate([[window.start_ns], middles]), at - FAR_NS / 2)
    ends = np.minimum(np.concatenate([middles, [window.end_ns]]), at + FAR_NS / 2)
    weights = np.maximum(np.minimum(ends, window.end_ns) - np.maximum(begins, window.start_ns), 0.0)
    if weights.sum() < LEAST_COVERED * (window.end_ns - window.start_ns):
        return None
    return {"mean": float(np.average(values, weights=weights)), "max": float(values.max())}


def _together(chosen: pd.DataFrame, window: _Window, *, average: bool) -> pd.Series[Any]:
    """Return a gauge of all servers by the moment of reading in the window, if each had been read within FAR_NS."""
    wide = chosen.pivot_table(index="at_ns", columns="source", values="value", aggfunc="last", observed=True)
    at = wide.index.to_numpy(dtype=np.float64)
    read_at = wide.notna().mul(at, axis=0).where(wide.notna()).ffill()
    wide = wide.ffill().where(read_at.rsub(at, axis=0) <= FAR_NS).dropna()
    wide = wide.loc[window.start_ns - AT_THE_END_NS : window.end_ns + AT_THE_END_NS]
    return wide.mean(axis=1) if average else wide.sum(axis=1)


def _increases(own: pd.DataFrame, window: _Window) -> tuple[dict[str, float], dict[str, Any], list[str]]:
    """Return the increase of each counter over the window, all servers together; the reading of its ends; problems."""
    found: dict[str, float] = {}
    unknown: set[str] = set()
    ends: dict[str, Any] = {}
    notes: list[str] = []
    counters = own[own["name"].isin(COUNTERS)]
    for (source, name), readings in counters.groupby(["source", "name"], observed=True, sort=True):
        at = readings["at_ns"].to_numpy(dtype=np.int64)
        values, width = (readings[column].to_numpy(dtype=np.float64) for column in ("value", "width_ns"))
        first = _at(at, values, width, window.start_ns, window.idle_from_ns)
        last = _at(at, values, width, window.end_ns, window.idle_until_ns)
        if first is None or last is None:
            unknown.add(str(name))
            continue
        between = values[(at >= first.from_ns) & (at <= last.to_ns)]
        if (np.diff(between) < 0).any():
            unknown.add(str(name))
            notes.append(f"A counter of {source} fell during the window: the server was started again.")
            continue
        found[str(name)] = found.get(str(name), 0.0) + max(0.0, last.value - first.value)
        for end, read in (("start", first.as_fact()), ("end", last.as_fact())):
            ends[end] = max(ends.get(end, read), read, key=lambda one: abs(one["off_ms"]))
    if unknown and not notes:
        notes.append("The server's counters are not known: no page was read near an end of the window.")
    known = {name: value for name, value in found.items() if name not in unknown}
    return known, ends, list(dict.fromkeys(notes))


@dataclass(frozen=True, slots=True)
class _AtEnd:
    """A counter at an end of the window.

    how: "read" (a reading at that moment), "idle" (the reading next to it, without requests to the server between),
    "between" (interpolated between the readings around it), "nearest" (one on the wrong side of it).
    """

    value: float
    how: str
    off_ms: float  # from the end to the reading, or between the readings around it
    width_ms: float  # duration of the reading
    from_ns: int  # the readings it is based on
    to_ns: int

    def as_fact(self) -> dict[str, Any]:
        return {"how": self.how, "off_ms": self.off_ms, "width_ms": self.width_ms}


def _at(at: Ints, values: Floats, width: Floats, moment_ns: int, idle_ns: int | None) -> _AtEnd | None:
    """Return a counter at a moment; None if no reading is near enough.

    No request was sent to the server between the moment and `idle_ns`, which may lie on either side of it.
    """

    def read(i: int, how: str) -> _AtEnd:
        off_ms = float(at[i] - moment_ns) / NS_PER_MS
        return _AtEnd(float(values[i]), how, off_ms, float(width[i]) / NS_PER_MS, int(at[i]), int(at[i]))

    before = int(np.searchsorted(at, moment_ns, side="right")) - 1
    after = before + 1
    around = [i for i in (before, after) if 0 <= i < len(at)]
    idle = [i for i in around if idle_ns is not None and min(idle_ns, moment_ns) <= at[i] <= max(idle_ns, moment_ns)]
    if idle:
        return read(idle[0], "idle")
    nearest = min(around, key=lambda i: abs(int(at[i]) - moment_ns))
    if abs(int(at[nearest]) - moment_ns) <= AT_THE_END_NS:
        return read(nearest, "read")
    if len(around) == 2 and at[after] - at[before] <= FAR_NS:
        value = float(np.interp(moment_ns, at[around], values[around]))
        span_ms, width_ms = (float(ns) / NS_PER_MS for ns in (at[after] - at[before], width[around].max()))
        return _AtEnd(value, "between", span_ms, width_ms, int(at[before]), int(at[after]))
    return read(nearest, "nearest") if abs(int(at[nearest]) - moment_ns) <= FAR_NS else None


def _why_nothing(trial: TrialEntry, pages: Sequence[Mapping[str, Any]]) -> str:
    """Return why nothing is known of the server, in words that can follow a number's name."""
    if trial.pages is None:
        return "no page of the server was read in this run"
    if not pages:
        return "the engine has no page of its own, and `metrics_urls` names none"
    first = next((page for page in pages if page.get("reason")), None)
    if first is None:
        only_exporters = all(page.get("kind") and not page.get("source") for page in pages)
        return "`metrics_urls` names exporters only" if only_exporters else "no page was read during the trial"
    more = "; see `names` of `metrics_urls`" if first["reason"] == NO_KNOWN_NAME else ""
    return f"the page {first['url']} {first['reason']}{more}"
