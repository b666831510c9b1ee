"""Fits of a run: which of its loads are a sweep, the points that they give, and the curves through them."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.analysis.columns import ALL
from harness.analysis.summary import KEYS, POOLED
from harness.fits.costs import Cost, decode, prefill
from harness.fits.curve import Interval, Points
from harness.fits.refusal import Refusal
from harness.fits.throughput import CEILING, Throughput, throughput
from harness.metrics import METRICS, SCALAR
from harness.saturation.requests import SLO, requirements_of
from harness.saturation.users import DEFAULT_SHARE, Tried, users_within_slo
from harness.store.manifest import CellEntry, Manifest, TrialEntry

if TYPE_CHECKING:
    import pandas as pd

SINGLE, SUSTAINED = "single_user", "sustained"
SWEPT = (SUSTAINED, "mixed", "sessions")
LEAST_LOADS = 3  # of a sweep
THROUGHPUTS = ("output_tokens_per_s", "completed_rps")
NEEDED = (*THROUGHPUTS, "tpot_ms", "ttft_service_ms", "e2e_service_ms", "attainment")
CURVE_POINTS = 40
NORMAL_95 = 1.959964
Key = tuple[str, str]
Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Load:
    """Load of a sweep, its repetitions together. kind: loads of one kind belong together."""

    keys: tuple[str, ...]
    kind: str
    beside: str  # lengths that it sets itself, in words
    prompt_tokens: float | None
    users: int | None
    rows: Mapping[tuple[str, str], Row]
    trials: Sequence[Key]
    poor: Sequence[tuple[str, ...]]  # metrics of which the data is poor; an empty tuple is all
    limits: Sequence[str]

    def number(self, metric: str, statistic: str = SCALAR) -> float:
        """Return a finite number of good data; NaN for any other."""
        row = self.rows.get((metric, statistic))
        if row is None or any(not of or metric in of for of in self.poor) or not math.isfinite(row["value"]):
            return math.nan
        return float(row["value"])

    def ends(self, metric: str) -> tuple[float, float]:
        """Return the ends of a number's 95 % interval; infinite ones where it has none."""
        row = self.rows[metric, SCALAR]
        low, high = float(row["low"]), float(row["high"])
        return (-math.inf if math.isnan(low) else low, math.inf if math.isnan(high) else high)

    def error(self, metric: str, statistic: str = SCALAR) -> float:
        """Return the standard error of a number, from its interval; NaN without one."""
        row = self.rows.get((metric, statistic))
        if row is None or not math.isfinite(row["high"] - row["low"]):
            return math.nan
        return float(row["high"] - row["low"]) / 2 / NORMAL_95


def fits_of(
    manifest: Manifest,
    summary: pd.DataFrame,
    poor: Mapping[Key, Sequence[tuple[str, ...]]],
    series: Mapping[Key, Mapping[str, Any]],
) -> list[dict[str, Any]]:
    """Return the fits of every sweep, those that were refused among them, as plain values.

    Args:
        poor: Metrics of which a trial's data is poor; an empty tuple among them is all.
        series: Plot data of trials; `prefill` has the times to the first token by length of the prompt.
    """
    found, sweeps = [], _sweeps(manifest, summary, poor)
    for (keys, kind), loads in sweeps.items():
        by_users = [one for one in loads if one.users is not None]
        about = {"keys": list(keys), "kind": kind}
        if len(by_users) >= LEAST_LOADS:
            found.append(about | _throughput(by_users))
        if len(loads) >= LEAST_LOADS and any(("tpot_ms", "mean") in one.rows for one in loads):
            found.append(about | _decode(loads))
        found += [about | one for one in _prefill(loads, series)]
    for keys in dict.fromkeys(keys for keys, _ in sweeps):
        alone = [one for (own, _), loads in sweeps.items() if own == keys for one in loads if one.users == 1]
        found += [{"keys": list(keys), "kind": SINGLE} | one for one in _prefill_over_loads(alone, series)]
    return found


def users_of(
    manifest: Manifest, summary: pd.DataFrame, poor: Mapping[Key, Sequence[tuple[str, ...]]]
) -> list[dict[str, Any]]:
    """Return the largest number of users within the SLO for each sweep by users that has one, as plain values.

    The share of the requests is that of the limit on `attainment`, by default 95 %.
    """
    found = []
    for (keys, kind), loads in _sweeps(manifest, summary, poor).items():
        tried = [
            Tried(one.users, one.number("attainment"), *one.ends("attainment"))
            for one in loads
            if one.users is not None and math.isfinite(one.number("attainment"))
        ]
        if len(tried) < LEAST_LOADS:
            continue
        asked = requirements_of(DEFAULT_SHARE, loads[0].limits)
        within = asdict(users_within_slo(tried, next((one.share for one in asked if one.metric == SLO), 1.0)))
        known = {"value": within["value"] if math.isfinite(within["value"]) else None, "unsure": list(within["unsure"])}
        found.append({"keys": list(keys), "kind": kind, "largest": max(one.users for one in tried), **within, **known})
    return found


def _sweeps(
    manifest: Manifest, summary: pd.DataFrame, poor: Mapping[Key, Sequence[tuple[str, ...]]]
) -> dict[tuple[tuple[str, ...], str], list[Load]]:
    """Return the loads by configuration and kind."""
    rows = _rows(summary)
    trials: dict[tuple[str, ...], list[tuple[CellEntry, TrialEntry]]] = {}
    for cell, trial in manifest.trials():
        if trial.kind in (SINGLE, *SWEPT) and not trial.ramp:
            trials.setdefault((*cell.keys, trial.load), []).append((cell, trial))
    loads = [_load(keys, own, rows.get(keys, {}), poor) for keys, own in trials.items()]
    times = Counter((one.keys[:-1], one.kind, one.beside, one.users) for one in loads if one.users is not None)
    found: dict[tuple[tuple[str, ...], str], list[Load]] = {}
    for one in loads:
        # Loads of equal users differ in something else: each belongs with those named alike but for numbers.
        alone = one.users is None or times[one.keys[:-1], one.kind, one.beside, one.users] == 1
        kind = one.kind if alone else re.sub(r"\d+(\.\d+)?", "n", one.keys[-1])
        found.setdefault((one.keys[:-1], ", ".join(filter(None, (kind, one.beside)))), []).append(one)
    return found


def _load(
    keys: tuple[str, ...],
    trials: Sequence[tuple[CellEntry, TrialEntry]],
    rows: Mapping[tuple[str, str], Row],
    poor: Mapping[Key, Sequence[tuple[str, ...]]],
) -> Load:
    trial = trials[0][1]
    single = trial.kind == SINGLE
    known = [(cell.id, one.id) for cell, one in trials]
    of_all = [metrics for key in known for metrics in poor.get(key, ())]
    kind, users = (SUSTAINED, 1) if single else (trial.kind, trial.users)
    return Load(keys, kind, trial.lengths_in_words, trial.prompt_tokens, users, rows, known, of_all, trial.limits)


def _rows(summary: pd.DataFrame) -> dict[tuple[str, ...], dict[tuple[str, str], Row]]:
    """Return the pooled rows of all requests that fits need, by load, metric and statistic."""
    needed = summary["metric"].isin(NEEDED) & summary["statistic"].isin((SCALAR, "mean"))
    chosen = summary[needed & (summary["class"] == ALL) & (summary["repetition"] == POOLED)]
    found: dict[tuple[str, ...], dict[tuple[str, str], Row]] = {}
    for row in chosen.to_dict("records"):
        own = found.setdefault(tuple(str(row[key]) for key in KEYS), {})
        own[str(row["metric"]), str(row["statistic"])] = {str(name): value for name, value in row.items()}
    return found


def _throughput(loads: Sequence[Load]) -> dict[str, Any]:
    """Return the law of output tokens/s over users; of requests/s where tokens were not counted."""
    metric = next((name for name in THROUGHPUTS if any(math.isfinite(one.number(name)) for one in loads)), "")
    points = _points([(float(one.users or 0), one.number(metric), one.error(metric)) for one in loads])
    found = throughput(points)
    about = {"fit": "throughput", "metric": metric, "points": len(points)}
    if isinstance(found, Refusal):
        return about | {"refused": found.why}
    users = np.geomspace(points.x.min(), points.x.max(), CURVE_POINTS)
    return about | _law(found, metric) | {
        "least": float(points.x.min()),
        "largest": float(points.x.max()),
        "curve": [users.tolist(), found.fitted.at(users).tolist()],
    }  # fmt: skip


def _law(found: Throughput, metric: str) -> dict[str, Any]:
    unit = METRICS[metric].unit
    units = {"gamma": f"{unit} of one user", "alpha": "contention", "beta": "coherency", "most": unit}
    numbers = [_number(name, one, units[name]) for name, one in found.parameters.items()]
    return {
        "law": found.law,
        "numbers": [*numbers, _number("ceiling" if found.law == CEILING else "peak", found.peak, "users")],
        "is_near": found.is_near,
        "hold_out": found.hold_out,
    }


def _decode(loads: Sequence[Load]) -> dict[str, Any]:
    """Return the mean time per token over the mean number of requests decoding at once.

    That number is by Little's law: requests/s, times the mean time from the first token to the end of a request.
    """
    points = []
    for one in loads:
        decoding_ms = one.number("e2e_service_ms", "mean") - one.number("ttft_service_ms", "mean")
        at_once = one.number("completed_rps") * decoding_ms / 1e3
        points.append((at_once, one.number("tpot_ms", "mean"), one.error("tpot_ms", "mean")))
    known = _points(points)
    return {"fit": "decode", "points": len(known)} | _cost(decode(known), "request decoding")


def _prefill(loads: Sequence[Load], series: Mapping[Key, Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield the time to the first token of a single user over the length of the prompt, if lengths vary."""
    for key in (key for one in loads if one.users == 1 for key in one.trials):
        bins = series.get(key, {}).get("prefill")
        if bins is None or len(bins) < LEAST_LOADS:
            continue
        yield _prefill_of(bins)
        return


def _prefill_over_loads(alone: Sequence[Load], series: Mapping[Key, Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield the same through the loads of a single user that set a length of prompts each; a length is a point."""
    import pandas as pd

    of_length: dict[float, list[pd.DataFrame]] = {}
    for one in alone:
        bins = [series.get(key, {}).get("prefill") for key in one.trials if one.prompt_tokens is not None]
        known = [own for own in bins if own is not None and len(own)]
        if known:
            of_length.setdefault(one.prompt_tokens or 0.0, []).extend(known)
    every = [own for frames in of_length.values() for own in frames]
    if len(of_length) >= LEAST_LOADS and all(len(own) < LEAST_LOADS for own in every):
        points = pd.DataFrame([_mean_bin(pd.concat(frames)) for frames in of_length.values()])
        yield _prefill_of(points.sort_values("tokens"))


def _mean_bin(bins: pd.DataFrame) -> dict[str, float]:
    """Return bins as one, by their numbers of requests."""
    weights = bins["n"] / bins["n"].sum()
    means = {name: float((weights * bins[name]).sum()) for name in ("tokens", "tokens_squared", "ms")}
    return means | {"error_ms": float(np.sqrt(((weights * bins["error_ms"]) ** 2).sum()))}


def _prefill_of(bins: pd.DataFrame) -> dict[str, Any]:
    columns = (bins[name].to_numpy() for name in ("tokens", "ms", "error_ms"))
    found = prefill(Points(*columns), bins["tokens_squared"].to_numpy())
    return {"fit": "prefill", "points": len(bins)} | _cost(found, "prompt token")


def _cost(found: Cost | Refusal, of: str) -> dict[str, Any]:
    if isinstance(found, Refusal):
        return {"refused": found.why}
    units = ("ms", f"ms per {of}", f"ms per {of} squared")
    return {
        "numbers": [_number(f"{power}", one, units[power]) for power, one in enumerate(found.coefficients)],
        "least": found.least,
        "largest": found.largest,
        "hold_out": found.hold_out,
    }


def _number(name: str, one: Interval, unit: str) -> dict[str, Any]:
    """Return a number with its interval; an open end is None."""
    value, low, high = (end if math.isfinite(end) else None for end in (one.value, one.low, one.high))
    return {"name": name, "value": value, "low": low, "high": high, "unit": unit}


def _points(found: Sequence[tuple[float, float, float]]) -> Points:
    """Return the points with a number, in the order of x; none if fewer than half of them have an interval.

    A point without an interval counts with the largest relative error of the others.
    """
    known = sorted(one for one in found if all(math.isfinite(number) and number > 0 for number in one[:2]))
    x, y, errors = np.array(known, dtype=np.float64).reshape(-1, 3).T
    relative = errors / y
    unknown = ~(relative > 0)
    if 2 * unknown.sum() > len(known):
        return Points(*np.empty((3, 0)))
    return Points(x, y, np.where(unknown, np.nanmax(relative, initial=0.0), relative) * y)
