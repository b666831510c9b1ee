"""Loads of a run as points of its curves: which of them belong to one sweep, and what each measured."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from harness.store.manifest import CellEntry, TrialEntry
from reports.data import ALL, ReportData, keys_of, place
from reports.format import amount, beyond, dotted, wide
from reports.knee import Knee, knee
from reports.names import load_names
from reports.tables.base import by_class, classes, groups

RATE, USERS = "rate", "users"
LENGTHS = PROMPT, OUTPUT = "prompt", "output"
SINGLE = "single_user"
LEAST_LOADS = 3  # of a knee
JUDGED_BY = {"ttft_ms": "TTFT", "e2e_ms": "E2E"}
_SWEPT = ("sustained", "mixed", "sessions")
_LIMIT = re.compile(r"(?:<=?)\s*([\d.]+)\s*(ms|s|)\s*$")


@dataclass(frozen=True, slots=True)
class Estimate:
    """Number of a load with its 95 % interval; an end is NaN where it is open.

    Attributes:
        value: The bound itself if `censored`: requests that never ended hide the number.
        below: Whether the number is at most its bound; else it is at least that.
        poor: Why its data is poor, "" if it is not.
        beyond: Observations beyond a quantile.
    """

    value: float
    low: float
    high: float
    censored: bool = False
    poor: str = ""
    show: str = "number"
    beyond: float = math.inf
    below: bool = False

    @property
    def wide(self) -> bool:
        """Whether it is not known well, as in the tables."""
        return self.censored or wide(self.value, self.low, self.high, self.show, self.beyond)

    @property
    def sign(self) -> str:
        """What stands before a bound: "> " or "< "; "" before a number."""
        return ("< " if self.below else "> ") * self.censored

    @property
    def text(self) -> str:
        """Number as in the tables: "53.4 [52.1, 55.0]", "53.4~" if open, "> 53.4", in brackets if its data is poor."""
        shown = f"{self.sign}{amount(self.value)}"
        if self.low < self.high:
            shown += f" [{amount(self.low)}, {amount(self.high)}]"
        elif self.wide and not self.censored:
            shown += "~"
        return f"({shown})" if self.poor else shown

    def times(self, factor: float) -> Estimate:
        """Return factor * number, of a positive factor."""
        return replace(self, value=factor * self.value, low=factor * self.low, high=factor * self.high)

    def inverted(self, factor: float) -> Estimate:
        """Return factor / number: of a number that is at least its bound, at most the bound's."""
        value, low, high = (factor / one if one else math.nan for one in (self.value, self.high, self.low))
        return replace(self, value=value, low=low, high=high, below=self.censored and not self.below)


@dataclass(frozen=True, slots=True)
class Load:
    """Load on a configuration, its repetitions together.

    Attributes:
        name: As in the tables: "8/s", "4 users", or its own.
        axis: What it varies in a sweep: RATE or USERS; in one of lengths PROMPT or OUTPUT; "" if it is part of none.
        kind: Kind of its sweep: only loads of one kind belong together.
        x: Requests asked for per second, users, or tokens.
        beside: What else its sweep has in common: "cap 16, prompt 512", or in a sweep of lengths "4 users".
    """

    keys: tuple[str, ...]
    name: str
    axis: str
    kind: str
    x: float
    cell: CellEntry
    trial: TrialEntry
    estimates: Mapping[tuple[str, str], Estimate]
    beside: str = ""

    def get(self, metric: str, statistic: str = "value") -> Estimate | None:
        return self.estimates.get((metric, statistic))

    def number(self, metric: str, statistic: str = "value") -> float:
        found = self.get(metric, statistic)
        return math.nan if found is None else found.value


@dataclass(frozen=True, slots=True)
class Sweep:
    """Loads of one kind, by configuration, in ascending order; `beside` as of its loads."""

    axis: str
    kind: str
    loads: Mapping[tuple[str, ...], Sequence[Load]]
    beside: str = ""

    @property
    def whole_kind(self) -> str:
        """What all of its loads have in common."""
        return ", ".join(filter(None, (self.kind, self.beside)))

    def knees(self) -> dict[tuple[str, ...], Knee]:
        """Return the knee of each configuration of at least three loads that has one; lengths have none.

        It is judged by p95 of TTFT, or of E2E if nothing streamed, and by SLO attainment; without an SLO, by the
        successful requests of an open loop per request asked for.
        """
        loads = self.loads if self.axis in (RATE, USERS) else {}
        found = {keys: _knee(own) for keys, own in loads.items() if len(own) >= LEAST_LOADS}
        return {keys: one for keys, one in found.items() if one is not None}


def latency_of(own: Sequence[Load]) -> str:
    """Return the latency that a sweep is judged by."""
    return next((name for name in JUDGED_BY if any(load.get(name, "p95") for load in own)), "ttft_ms")


def _knee(own: Sequence[Load]) -> Knee | None:
    metric = latency_of(own)
    share, name = [load.number("attainment") for load in own], "SLO attainment"
    if all(math.isnan(one) for one in share):
        asked = [load.number("offered_rps") if load.axis == RATE else math.nan for load in own]
        share = [load.number("completed_rps") / rate for load, rate in zip(own, asked, strict=True)]
        name = "the share of successful requests"
    p95 = [load.number(metric, "p95") for load in own]
    return knee([load.x for load in own], p95, share, (f"{JUDGED_BY[metric]} p95", name))


@lru_cache(maxsize=1)
def loads_of(data: ReportData) -> list[Load]:
    """Return every load on every configuration that left a number, in the order of the run."""
    found, measured, short = [], dict[str, float](), load_names(data)
    for keys, trials in groups(data).items():
        rows = by_class(data).get((*keys, ALL), {})
        estimates = {key: _estimate(data, keys, row) for key, row in rows.items()}
        known = {key: one for key, one in estimates.items() if math.isfinite(one.value)}
        if offered := known.get(("offered_rps", "value")):
            measured.setdefault(keys[-1], float(f"{offered.value:.2g}"))
        if known:
            found.append(_load(keys, short[keys[-1]], *trials[0], known, measured.get(keys[-1])))
    times = Counter(_point(load) for load in found if load.trial.kind != SINGLE)
    others = (times[_point(load)] - (load.trial.kind != SINGLE) for load in found)
    return [_apart(load) if load.axis and other else load for load, other in zip(found, others, strict=True)]


def _point(load: Load) -> tuple[tuple[str, ...], str, str, float]:
    return load.keys[:-1], load.axis, load.beside, load.x


def _apart(load: Load) -> Load:
    """Return a load that another one equals in rate or users: it belongs with loads named alike but for numbers."""
    return replace(load, kind=re.sub(r"\d+(\.\d+)?", "n", load.keys[-1]))


def sweeps_of(data: ReportData) -> list[Sweep]:
    """Return the sweeps of a run by rate or users: those with at least two loads on a configuration."""
    return _sweeps(load for load in loads_of(data) if load.axis)


def sweeps_of_lengths(data: ReportData) -> list[Sweep]:
    """Return the sweeps of a run by the length of prompts or replies, all else being equal."""
    loads = [_by_length(load, axis) for axis in LENGTHS for load in loads_of(data) if axis in load.trial.own_lengths]
    times = Counter((load.axis, load.keys[:-1], load.kind, load.beside, load.x) for load in loads)
    mixed = {kept[:-1] for kept, number in times.items() if number > 1}
    return _sweeps(
        _apart(load) if (load.axis, load.keys[:-1], load.kind, load.beside) in mixed else load for load in loads
    )


def _by_length(load: Load, axis: str) -> Load:
    """Return a load as a point of a sweep over one of its lengths."""
    others = [{RATE: f"{load.x:g}/s", USERS: f"{load.x:g} user{'s' * (load.x != 1)}"}.get(load.axis, load.kind)]
    others += [f"cap {load.trial.max_concurrency}"] if load.trial.max_concurrency is not None else []
    lengths = load.trial.own_lengths
    others += [f"{word} {tokens:.0f}" for word, tokens in lengths.items() if word != axis]
    kind = "" if load.trial.kind in (*_SWEPT, SINGLE) else load.kind
    return replace(load, axis=axis, kind=kind, beside=", ".join(others), x=lengths[axis])


def _sweeps(loads: Iterable[Load]) -> list[Sweep]:
    found: dict[tuple[str, str, str], dict[tuple[str, ...], list[Load]]] = {}
    for load in loads:
        found.setdefault((load.axis, load.kind, load.beside), {}).setdefault(load.keys[:-1], []).append(load)
    ascending = {key: {keys: _ascending(own) for keys, own in cells.items()} for key, cells in found.items()}
    return [
        Sweep(axis, kind, cells, beside)
        for (axis, kind, beside), cells in ascending.items()
        if any(len(own) > 1 for own in cells.values())
    ]


def _ascending(own: Sequence[Load]) -> list[Load]:
    """Return one load for each x, in order."""
    return sorted({load.x: load for load in own}.values(), key=lambda load: load.x)


def names_of(data: ReportData) -> dict[tuple[str, ...], str]:
    """Return a short name of each configuration: the parts in which they differ."""
    cells = list(dict.fromkeys(load.keys[:-1] for load in loads_of(data)))
    differing = [len({keys[part] for keys in cells}) > 1 for part in range(4)]
    return {
        keys: dotted(name for name, differs in zip(keys, differing, strict=True) if differs) or place((*keys, ""))
        for keys in cells
    }


def slos_of(data: ReportData, cell: CellEntry, trial: TrialEntry) -> dict[str, dict[float, str]]:
    """Return the labels of the SLOs of each latency, by their value in ms: of each class, if any has its own."""
    names = classes(data, keys_of(cell, trial.load)) if trial.class_slo else [""]
    found: dict[str, dict[float, list[str]]] = {}
    for name in names:
        own = {metric: value for metric, value in trial.class_slo.get(name, {}).items() if value is not None}
        for metric, value in {**trial.slo, **own}.items():
            if value is not None:
                found.setdefault(metric, {}).setdefault(float(value), []).append(name)
    return {
        metric: {value: " ".join(["SLO", *filter(None, [", ".join(of)]), f"{value:g} ms"]) for value, of in own.items()}
        for metric, own in found.items()
    }


def limits_of(load: Load, metric: str, statistic: str) -> dict[float, str]:
    """Return the upper limits of a latency in ms with their labels."""
    found = {}
    for text in load.trial.limits:
        if text.split()[:2] == [metric, statistic] and (match := _LIMIT.search(text)):
            value = float(match[1]) * (1000.0 if match[2] == "s" else 1.0)
            found[value] = f"limit {value:g} ms"
    return found


def floors_of(load: Load, metric: str) -> dict[float, str]:
    """Return the lower limits of a rate with their labels."""
    found = (re.fullmatch(rf"\s*{metric}\s*>=?\s*([\d.]+)[^\d]*", text) for text in load.trial.limits)
    return {float(one[1]): f"limit {float(one[1]):g}" for one in found if one}


def _load(
    keys: tuple[str, ...],
    name: str,
    cell: CellEntry,
    trial: TrialEntry,
    estimates: Mapping[tuple[str, str], Estimate],
    measured: float | None,
) -> Load:
    """Return a load; `measured` stands for its rate in runs of older versions, which do not store it."""
    users = 1 if trial.kind == SINGLE else trial.users
    kind = "sustained" if trial.kind == SINGLE else trial.kind  # it is a closed loop of one
    rate = getattr(trial, "rate", None) or measured
    cap = "" if trial.max_concurrency is None else f"cap {trial.max_concurrency}"
    about = (cell, trial, estimates, ", ".join(filter(None, (cap, trial.lengths_in_words))))
    if kind in _SWEPT and users is not None:
        return Load(keys, name, USERS, kind, float(users), *about)
    if kind in _SWEPT and trial.loop == "open" and rate:
        return Load(keys, name, RATE, kind, float(rate), *about)
    return Load(keys, name, "", kind, math.nan, *about)


def _estimate(data: ReportData, keys: tuple[str, ...], row: Mapping[str, Any]) -> Estimate:
    value, low, high = (float(row[name]) for name in ("value", "low", "high"))
    poor = data.poor_because(keys, str(row["metric"]))
    censored = not math.isfinite(value)
    below = censored and row["bound"] == "upper"
    ends = (high, low) if below else (low, high)
    known = next((end for end in ends if math.isfinite(end)), math.nan) if censored else value
    low, high = (end if math.isfinite(end) else math.nan for end in (low, high))
    show = "share" if row["unit"] == "share" else "number"
    return Estimate(known, low, high, censored, poor, show, beyond(row), below)
