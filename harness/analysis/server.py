"""What a server said of itself during a trial: its queue, its cache and its counters, over the measuring window."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.store.categories import one_of
from harness.store.manifest import TrialEntry
from harness.telemetry.prometheus.names import COUNTERS, GAUGES, NO_KNOWN_NAME

if TYPE_CHECKING:
    import pandas as pd

    from harness.analysis.reading import Reading

NS_PER_MS = 1e6
AT_THE_END_NS = 100_000_000
FAR_NS = 2_500_000_000
AROUND_NS = 60_000_000_000
LEAST_COVERED = 0.5
LAST_READING_NS = 200_000_000  # see `trial.LAST_READING_S`
PEAKS = frozenset({"kv_cache_peak_share"})
_OF_SERVERS = r"server\d+"
_FROM_PAIRS = {"prefix_hit_share": ("prefix_hits_tokens", "prefix_queries_tokens", 1.0)} | {
    "queue_time_ms_mean": ("queue_time_s", "queue_time_count", 1e3)
}
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
    """The facts under `server`; JSON-able.

    pages: of each page url, source, kind, scrapes, failures, ms_per_scrape, ms_per_reading, reason.
    window: of gauges {mean, max}, of counters the increase over the window, prefix_hit_share, queue_time_ms_mean; what
    is not known is absent.   ends: how the counters were read at its start and end, see `_at`.
    notes: sentences about what is not as it should be.   seldom: gauges that were read for too little of the window.
    reason: why there is nothing at all, else None.
    """
    trial = reading.trial
    pages = [page.model_dump(exclude_unset=True) for page in trial.pages or ()]
    own = _of_the_trial(samples, trial, reading)
    if not len(own):
        nothing = {"pages": pages, "window": {}, "ends": {}, "notes": [], "seldom": []}
        return nothing | {"reason": _why_nothing(trial, pages)}
    window = _Window.of(reading)
    found: dict[str, Any] = {name: told for name in GAUGES if (told := _gauge(own, name, window)) is not None}
    seldom = [name for name in GAUGES if name not in found and (own["name"] == name).any()]
    increases, ends, notes = _increases(own, window)
    found |= increases
    for name, (amount, per, unit) in _FROM_PAIRS.items():
        if found.get(per):
            found[name] = found.get(amount, 0.0) / found[per] * unit if amount in found else None
    for name in ("prefix_hits_tokens", "prefix_queries_tokens", "queue_time_s", "queue_time_count"):
        found.pop(name, None)
    known = {name: value for name, value in found.items() if value is not None}
    notes += [f"The server's gauges are not known: {SELDOM}."] if seldom else []
    reason = None if known else SELDOM if seldom else "no page was read within the window"
    return {"pages": pages, "window": known, "ends": ends, "notes": notes, "seldom": seldom, "reason": reason}


def server_readings(facts: Mapping[str, Any] | None) -> dict[str, float]:
    """The metrics among the facts of a trial; what is not known is left out."""
    window = ((facts or {}).get("server") or {}).get("window") or {}
    found = {}
    for metric, (name, part) in _METRICS.items():
        value = window.get(name)
        if value is not None:
            found[metric] = float(value if part is None else value[part])
    return found


def why_missing(server: Mapping[str, Any]) -> dict[str, str]:
    """Why the metrics of `server_readings` that are not there have no value."""
    if server["reason"]:
        return dict.fromkeys(_METRICS, server["reason"])
    window = server["window"]
    found = dict.fromkeys(_METRICS, "the server's page does not tell it")
    if any("fell" in note for note in server["notes"]):
        found |= {name: server["notes"][0] for name, (_, part) in _METRICS.items() if part is None}
    elif window.get("finished_requests") == 0:
        found["server_queue_ms_mean"] = "no request ended in the window by the server's count"
    found |= {name: SELDOM for name, (gauge, _) in _METRICS.items() if gauge in (server.get("seldom") or ())}
    return {name: why for name, why in found.items() if _METRICS[name][0] not in window}


@dataclass(slots=True)
class _Window:
    """Where readings count, absolute. idle_from_ns, idle_until_ns: since when, before it, and until when, after it,
    nothing was asked of the server; None where it was.
    """

    start_ns: int
    end_ns: int
    idle_from_ns: int | None = None
    idle_until_ns: int | None = None

    @classmethod
    def of(cls, reading: Reading) -> _Window:
        """A load may have been asked for before it, while it came up, and may go on behind it, until what is measured
        has ended: then the server was not idle.
        """
        trial, columns, window = reading.trial, reading.columns, reading.window
        before, ended_ns = trial.begun_ns, trial.ended_ns
        after = None if ended_ns is None else ended_ns + LAST_READING_NS
        if (columns.times["sent"] < window.start_ns).any():
            before = None
        if (columns.ended > window.end_ns).any():
            after = None
        t0_ns = trial.t0_ns or 0
        return cls(t0_ns + round(window.start_ns), t0_ns + round(window.end_ns), before, after)


def _of_the_trial(samples: pd.DataFrame, trial: TrialEntry, reading: Reading) -> pd.DataFrame:
    """The readings of servers from shortly before the window until shortly after, in the order of time."""
    servers = [source for source in samples["source"].unique() if re.fullmatch(_OF_SERVERS, str(source))]
    own = samples[one_of(samples["source"], servers)]
    if trial.t0_ns is None or not len(own):
        return own.iloc[:0]
    at = own["at_ns"] - trial.t0_ns
    near = (at >= reading.window.start_ns - AROUND_NS) & (at <= reading.window.end_ns + AROUND_NS)
    found: pd.DataFrame = own[near].sort_values("at_ns", kind="stable")
    return found


def _gauge(own: pd.DataFrame, name: str, window: _Window) -> dict[str, float] | None:
    """Mean over the time of the window, and the largest reading; servers together: requests add up, shares are
    averaged. None where readings stand for less than half of the window.
    """
    chosen = own[one_of(own["name"], [name])]
    if not len(chosen):
        return None
    together = _together(chosen, window, average=name.endswith("_share"))
    at, values = together.index.to_numpy(dtype=np.float64), together.to_numpy(dtype=np.float64)
    if not len(at) or window.end_ns <= window.start_ns:
        return None
    # Each reading stands for the time that it is the nearest to, and for FAR_NS at most: what came later is not known.
    middles = (at[1:] + at[:-1]) / 2
    begins = np.maximum(np.concatenate([[window.start_ns], middles]), at - FAR_NS / 2)
    ends = np.minimum(np.concatenate([middles, [window.end_ns]]), at + FAR_NS / 2)
    weights = np.maximum(np.minimum(ends, window.end_ns) - np.maximum(begins, window.start_ns), 0.0)
    if weights.sum() < LEAST_COVERED * (window.end_ns - window.start_ns):
        return None
    return {"mean": float(np.average(values, weights=weights)), "max": float(values.max())}


def _together(chosen: pd.DataFrame, window: _Window, *, average: bool) -> pd.Series[Any]:
    """A gauge of all servers by the moment of reading, within the window; at moments when one of them had not been read
    for FAR_NS, there is none.
    """
    wide = chosen.pivot_table(index="at_ns", columns="source", values="value", aggfunc="last", observed=True)
    at = wide.index.to_numpy(dtype=np.float64)
    read_at = wide.notna().mul(at, axis=0).where(wide.notna()).ffill()
    wide = wide.ffill().where(read_at.rsub(at, axis=0) <= FAR_NS).dropna()
    wide = wide.loc[window.start_ns - AT_THE_END_NS : window.end_ns + AT_THE_END_NS]
    return wide.mean(axis=1) if average else wide.sum(axis=1)


def _increases(own: pd.DataFrame, window: _Window) -> tuple[dict[str, float], dict[str, Any], list[str]]:
    """By how much the counters rose over the window, all servers together; how its ends were read; what is wrong."""
    found: dict[str, float] = {}
    unknown: set[str] = set()
    ends: dict[str, Any] = {}
    notes: list[str] = []
    counters = own[own["name"].isin(COUNTERS)]
    for (source, name), readings in counters.groupby(["source", "name"], observed=True, sort=True):
        at = readings["at_ns"].to_numpy(dtype=np.int64)
        values = readings["value"].to_numpy(dtype=np.float64)
        width = readings["width_ns"].to_numpy(dtype=np.float64)
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
        ends = _worse(ends, {"start": first.told(), "end": last.told()})
    if unknown and not notes:
        notes.append("The server's counters are not known: no page was read near an end of the window.")
    known = {name: value for name, value in found.items() if name not in unknown}
    return known, ends, list(dict.fromkeys(notes))


@dataclass(frozen=True, slots=True)
class _AtEnd:
    """A counter at an end of the window.

    how: "read" (a reading at that moment), "idle" (the reading next to it, with nothing asked of the server between),
    "between" (interpolated between the readings around it), "nearest" (one on the wrong side of it).
    off_ms: from the end to the reading, or from one to the other around it.   width_ms: of the reading.
    from_ns, to_ns: the readings it rests on.
    """

    value: float
    how: str
    off_ms: float
    width_ms: float
    from_ns: int
    to_ns: int

    def told(self) -> dict[str, Any]:
        """For the facts."""
        return {"how": self.how, "off_ms": self.off_ms, "width_ms": self.width_ms}


def _at(
    at: np.ndarray[Any, Any],
    values: np.ndarray[Any, Any],
    width: np.ndarray[Any, Any],
    moment_ns: int,
    idle_ns: int | None,
) -> _AtEnd | None:
    """A counter at a moment; None where no reading is near enough. idle_ns: from when on until then, or from then on
    until when, nothing was asked of the server.
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
        span_ms = float(at[after] - at[before]) / NS_PER_MS
        return _AtEnd(
            value, "between", span_ms, float(width[around].max()) / NS_PER_MS, int(at[before]), int(at[after])
        )
    return read(nearest, "nearest") if abs(int(at[nearest]) - moment_ns) <= FAR_NS else None


def _worse(ends: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    """Of each end the one read farther from it."""
    return {
        end: max((one[end] for one in (ends, more) if one), key=lambda told: abs(told["off_ms"]))
        for end in ("start", "end")
    }


def _why_nothing(trial: TrialEntry, pages: Sequence[Mapping[str, Any]]) -> str:
    """Why nothing is known of the server, in words that can stand behind a number's name."""
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
