"""Candidates of stored runs: each a configuration on a machine, with the rates that it was tested at."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.analysis.columns import ALL
from harness.analysis.summary import KEYS, POOLED
from harness.capacity.cost import Tokens
from harness.capacity.rate import Capacity, Holds, Tried, capacity_of, chances_of
from harness.capacity.requirements import Requirement, together
from harness.errors import UsageError
from harness.metrics import METRICS, QUALITY, SCALAR
from harness.quality.summary import quality_keys
from harness.records import Loop
from harness.results import Results, derive
from harness.scenario.limits import parse_limit
from harness.store.manifest import CellEntry, Manifest, TrialEntry
from harness.store.run import Run, find_run
from harness.units import enumerated
from harness.verdict.limits.gate import Verdict
from harness.verdict.reason import LOAD_CODES, Level, Reason

if TYPE_CHECKING:
    import pandas as pd

ATTAINMENT, OVERLOAD, STABILITY = "attainment", "overload", "stability"
SEARCH, SEARCHED, SEARCH_TAIL = "saturate", "saturation", 0.1
"""Kind of a load that searches for the largest rate, its fact, and the chance beyond each end of its result."""
_OF_THE_RATE = frozenset(
    {"offered_rps", "completed_rps", "goodput_rps", "output_tokens_per_s", "input_tokens_per_s", "mean_concurrency"}
)
"""Numbers that grow with the rate itself: no requirement on a rate."""
_OF_THE_CLIENT = LOAD_CODES - {"errors"}
_QUALITY_SHOWN = ("kl_mean", "kl_bound", "top1_agreement", "ppl_ratio")
Keys = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Point:
    """One tested rate.

    Attributes:
        requirements: Its limits and its SLO, with their numbers.
        why_unknown: Why nothing is known of it, "" if something is.
        in_flight: Mean number of requests in flight.
        joules_per_output_token: Energy of its GPUs; None if it was not measured.
        numbers: Further numbers by name: p50 and p95 of latencies, tokens per second.
        intervals: 95 % intervals of some of these numbers; an end is NaN where it is unknown.
        cv: Coefficient of variation of the gaps between its arrivals; None if the load does not state it.
        caveats: Sentences on what makes its numbers less good, or the plan more hopeful.
    """

    load: str
    rate_rps: float
    requirements: tuple[Requirement, ...]
    why_unknown: str = ""
    overloaded: bool = False
    tokens: Tokens = field(default_factory=Tokens)
    in_flight: float = math.nan
    joules_per_output_token: float | None = None
    numbers: Mapping[str, float] = field(default_factory=dict)
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    caveats: tuple[str, ...] = ()
    cv: float | None = None

    def tested(self, laxer: float = 1.0) -> Tried:
        """Return what this rate says of the capacity, with its requirements as they are or laxer by a factor."""
        asked = [one if laxer == 1.0 else one.laxer(laxer) for one in self.requirements]
        if self.why_unknown:
            return Tried(self.load, self.rate_rps, Holds.UNKNOWN, 0.5, self.why_unknown)
        holds, chance, least = together(asked)
        if self.overloaded:
            return Tried(self.load, self.rate_rps, Holds.NO, min(chance, 0.01), STABILITY)
        return Tried(self.load, self.rate_rps, holds, chance, least, all(one.is_met for one in asked))


@dataclass(frozen=True, slots=True)
class Candidate:
    """A configuration on a machine.

    Attributes:
        keys: Model, engine, level and variant; "" where there is none.
        run: Run as it was named; `path` is its folder.
        instance: Machine in the catalogue.
        points: Tried rates, ascending.
        quality: Values of metrics of quality.
        quality_fails: Limits on quality that it does not hold, as sentences.
        start_s: Time that its engine took to start; None if it was not started here.
        asks: What it was measured with: requirements and workload, which plans must share.
        searched: Result of a search for the largest rate (`facts["saturation"]`); None for tested rates.
    """

    keys: Keys
    run: str
    path: Path
    instance: str
    points: tuple[Point, ...]
    manifest: Manifest
    quality: Mapping[str, float] = field(default_factory=dict)
    quality_fails: tuple[str, ...] = ()
    start_s: float | None = None
    asks: Mapping[str, Any] = field(default_factory=dict)
    searched: Mapping[str, Any] | None = None

    @property
    def name(self) -> str:
        """Engine, level and variant."""
        return " ".join(filter(None, self.keys[1:])) or "default"

    @property
    def capacity(self) -> Capacity | None:
        return self.capacity_at(1.0)

    def capacity_at(self, laxer: float) -> Capacity | None:
        """Return the capacity with requirements that are laxer by a factor; None if no tested rate holds.

        A search was made for its own requirements alone.
        """
        if self.searched is not None:
            return capacity_of_search(self.searched, self.run, self.points[0]) if laxer == 1.0 else None
        return capacity_of([one.tested(laxer) for one in self.points], self.run)

    def point(self, load: str) -> Point:
        """Return the tested rate of a load."""
        return next(one for one in self.points if one.load == load)


def read_candidates(name: str, attainment: float, instance: str | None) -> list[Candidate]:
    """Return the candidates of a stored run.

    Args:
        name: Run, as the command was given it.
        attainment: Share of the requests that must meet the `slo`.
        instance: Machine that it ran on; None: as its scenario says.

    Raises UsageError if it says nothing of a rate, or names no machine.
    """
    path = find_run(name)
    run = Run.open(path)
    machine = instance or run.manifest.scenario_keys.instance
    if machine is None:
        raise UsageError(f"{name} does not say which machine it ran on; add `--instance NAME`, such as g5.xlarge")
    results = derive(run.manifest, run.trials(), path)
    found = [_candidate(name, path, machine, keys, results, attainment) for keys in _configurations(run.manifest)]
    known = [one for one in found if one is not None]
    if not known:
        raise UsageError(_why_none(name, results))
    return known


def _configurations(manifest: Manifest) -> list[Keys]:
    return list(dict.fromkeys(cell.keys for cell in manifest.cells if cell.status != "skipped"))


def _why_none(name: str, results: Results) -> str:
    """Return why no candidate is in a run, and what to measure."""
    trials = [trial for _, trial in results.manifest.trials()]
    if searches := [facts[SEARCHED] for facts in results.facts.values() if SEARCHED in facts]:
        if not any(one["lower_rps"] for one in searches):
            return f"{name} searched for the largest rate, and no rate is known to meet its requirements; ease them"
        return f"{name} searched for the largest rate, and no rate was confirmed; search with a longer `within`"
    at_rates = [trial for trial in trials if _is_rate(trial) or trial.kind == SEARCH]
    asked = [trial for trial in at_rates if _has_slo(trial) or trial.limits]
    if asked:
        why = next((one.reason for one in asked if one.reason), f"its trials are {asked[0].status}")
        return f"{name} has no results at a rate: {why.rstrip('.')}; measure again"
    if at_rates:
        return (
            f"{name} has neither an `slo` nor limits on its loads, so that no rate can be said to hold; "
            "add `slo: {ttft: 500ms}` to the scenario, and measure again"
        )
    loops = "closed loops" if any(trial.loop == Loop.CLOSED for trial in trials) else "no load at a constant rate"
    return f"{name} has only {loops}; measure rates: `load: [{{kind: sustained, rate: [1, 2, 4], duration: 5m}}]`"


def _is_rate(trial: TrialEntry) -> bool:
    return trial.rate is not None and trial.loop == Loop.OPEN and not trial.ramp


def _candidate(
    name: str, path: Path, instance: str, keys: Keys, results: Results, attainment: float
) -> Candidate | None:
    by_load: dict[str, list[tuple[CellEntry, TrialEntry]]] = {}
    for cell, trial in results.manifest.trials():
        if cell.keys == keys:
            by_load.setdefault(trial.load, []).append((cell, trial))
    searched, own = _search_of(by_load, results), {}
    if searched is None:
        own = {load: trials for load, trials in by_load.items() if _is_rate(trials[0][1])}
        _check_lengths(name, [trials[0][1] for trials in own.values()])
    else:
        own = {searched[0]: by_load[searched[0]]}
    points = [_point(keys, load, trials, results, attainment) for load, trials in own.items()]
    if searched is not None:
        points = [replace(points[0], rate_rps=searched[1]["lower_rps"])]
    known = sorted((one for one in points if one.requirements or one.why_unknown), key=lambda one: one.rate_rps)
    if not any(one.requirements for one in known):
        return None
    first = next(iter(own.values()))
    starts = [cell.start.load_s for trials in own.values() for cell, _ in trials if cell.start.load_s is not None]
    return Candidate(
        keys, name, path, instance, tuple(known), results.manifest, *_quality_of(first[0][0], results),
        float(max(starts)) if starts else None, _asks(results.manifest, first[0][1], attainment),
        None if searched is None else searched[1],
    )  # fmt: skip


def _check_lengths(name: str, tested: Sequence[TrialEntry]) -> None:
    """Raise UsageError if rates were tested with requests of several lengths: a plan is for one mix."""
    found = list(dict.fromkeys(trial.lengths_in_words for trial in tested))
    if len(found) > 1:
        shown = enumerated([one or "those of the workload" for one in found])
        raise UsageError(
            f"{name} has rates with several lengths of requests: {shown}; a plan needs one: measure each alone, or a "
            "mix of them as `classes`"
        )


def _search_of(
    by_load: Mapping[str, Sequence[tuple[CellEntry, TrialEntry]]], results: Results
) -> tuple[str, Mapping[str, Any]] | None:
    """Return the load that searched for the largest rate, with what it found; None if none found a rate."""
    for load, trials in by_load.items():
        for cell, trial in trials:
            found = results.facts.get((cell.id, trial.id), {}).get(SEARCHED)
            if found and found.get("lower_rps") and found.get("confirmed") != "no":
                return load, found
    return None


def capacity_of_search(found: Mapping[str, Any], run: str, measured: Point) -> Capacity:
    """Return the capacity that a search found: its ends each hold with a chance of 90 %.

    Args:
        measured: Its last part, at the lower end; alone it says how sure that end is if there is no upper one.
    """
    lower, upper = float(found["lower_rps"]), found.get("upper_rps")
    value = found.get("value_rps") or lower
    tail = SEARCH_TAIL if upper is not None else 1 - measured.tested().chance
    chances = chances_of(lower, value, upper, tail=tail)
    return Capacity(lower, value, upper, found.get("requirement") or "", "rate", run, measured.load, chances)


def _quality_of(cell: CellEntry, results: Results) -> tuple[dict[str, float], tuple[str, ...]]:
    """Return the quality of a configuration, and the sentences on limits that it does not hold."""
    rows = _rows(results.summary, quality_keys(cell))
    quality = {metric: rows[metric, SCALAR]["value"] for metric in _QUALITY_SHOWN if (metric, SCALAR) in rows}
    fails = [
        one.sentence
        for one in results.verdicts
        if one.keys == quality_keys(cell) and one.metric in QUALITY and one.outcome.value != "pass"
    ]
    return quality, tuple(fails)


def _asks(manifest: Manifest, trial: TrialEntry, attainment: float) -> dict[str, Any]:
    """Return what plans side by side must share, by name."""
    slo = {name: bound for name, bound in trial.slo.items() if bound is not None}
    of_classes = {
        name: {key: one for key, one in own.items() if one is not None} for name, own in trial.class_slo.items()
    }
    limits = [text for text in trial.limits if parse_limit(text).metric not in QUALITY]
    return {
        "slo": slo | of_classes,
        "limits": limits,
        "workload": {
            "workload": trial.workload_in(manifest.scenario),
            "classes": manifest.scenario.get("classes"),
        },
    } | ({"attainment": attainment} if slo or any(of_classes.values()) else {})


def _rows(summary: pd.DataFrame, keys: Keys) -> dict[tuple[str, str], dict[str, Any]]:
    """Return the pooled rows of all requests of a load, by metric and statistic."""
    chosen = summary[(summary["class"] == ALL) & (summary["repetition"] == POOLED)]
    for column, value in zip(KEYS, keys, strict=True):
        chosen = chosen[chosen[column] == value]
    rows: list[dict[str, Any]] = chosen.to_dict("records")  # type: ignore[assignment]
    return {(row["metric"], row["statistic"]): row for row in rows}


def _point(
    keys: Keys, load: str, trials: Sequence[tuple[CellEntry, TrialEntry]], results: Results, attainment: float
) -> Point:
    trial = trials[0][1]
    rows = _rows(results.summary, (*keys, load))
    reasons = [
        reason
        for cell, one in trials
        if (cell.id, one.id) in results.validity
        for reason in results.validity[cell.id, one.id].reasons
    ]
    verdicts = [one for one in results.verdicts if one.keys == (*keys, load) and one.metric not in QUALITY]
    asked = [_of_verdict(one, results.summary) for one in verdicts if _bounds_a_rate(one)]
    if not any(one.metric == ATTAINMENT for one in asked) and (ATTAINMENT, SCALAR) in rows and _has_slo(trial):
        asked.append(_of_slo(rows[ATTAINMENT, SCALAR], attainment, reasons))
    completed = _value(rows, "completed_rps")
    return Point(
        load,
        float(trial.rate or math.nan),
        tuple(asked),
        _why_unknown(reasons, trials),
        any(one.code == OVERLOAD for one in reasons),
        Tokens(*(_per(_value(rows, metric), completed) for metric in ("input_tokens_per_s", "output_tokens_per_s"))),
        _value(rows, "mean_concurrency"),
        _known(_value(rows, "energy_j_per_output_token")),
        {
            "ttft_p50_ms": _value(rows, "ttft_ms", "p50"),
            "ttft_p95_ms": _value(rows, "ttft_ms", "p95"),
            "e2e_p50_ms": _value(rows, "e2e_ms", "p50"),
            "e2e_p95_ms": _value(rows, "e2e_ms", "p95"),
            "output_tokens_per_s": _value(rows, "output_tokens_per_s"),
            "attainment": _value(rows, ATTAINMENT),
        },
        {
            "ttft_p95_ms": _interval(rows, "ttft_ms", "p95"),
            "output_tokens_per_s": _interval(rows, "output_tokens_per_s"),
        },
        tuple(_caveats(reasons, trial, results.manifest)),
        _cv(_load_of(trial, results.manifest)),
    )


def _cv(load: Mapping[str, Any]) -> float | None:
    """Return the coefficient of variation of the gaps between a load's arrivals; None for recorded ones and bursts."""
    if load.get("kind") == "burst":
        return None
    return {"constant": 0.0, "poisson": 1.0, "gamma": load.get("cv")}.get(str(load.get("arrivals")))


def _caveats(reasons: Sequence[Reason], trial: TrialEntry, manifest: Manifest) -> Iterator[str]:
    """Yield what a reader of a plan should know of a tested rate."""
    if _load_of(trial, manifest).get("arrivals") == "constant":
        yield "Arrivals were evenly spaced: real ones come in bursts, and a replica holds fewer of them."
    yield from dict.fromkeys(one.sentence for one in reasons if one.code != OVERLOAD)


def _load_of(trial: TrialEntry, manifest: Manifest) -> Mapping[str, Any]:
    """Return a load as the scenario states it; empty if an engine has loads of its own."""
    loads = manifest.scenario.get("load")
    found = loads[trial.index] if isinstance(loads, list) and trial.index < len(loads) else None
    return found if isinstance(found, dict) else {}


def _bounds_a_rate(verdict: Verdict) -> bool:
    limit = parse_limit(verdict.limit)
    return verdict.metric not in _OF_THE_RATE and limit.base is None


def _has_slo(trial: TrialEntry) -> bool:
    each = [trial.slo, *trial.class_slo.values()]
    return any(bound is not None for one in each for bound in one.values())


def _of_verdict(verdict: Verdict, summary: pd.DataFrame) -> Requirement:
    limit, metric = parse_limit(verdict.limit), METRICS[verdict.metric]
    rows = _rows(summary[summary["class"] == ALL], verdict.keys) if limit.class_name is None else {}
    row = rows.get((verdict.metric, limit.statistic or SCALAR), {})
    return Requirement(
        verdict.limit, verdict.metric, limit.statistic or "", limit.op, verdict.bound, verdict.value,
        verdict.low, verdict.high, float(row.get("n_eff", math.nan)), metric.unit,
        exact=verdict.certainty == "" and math.isfinite(verdict.value),
        invalid=verdict.sentence if verdict.outcome.value == "invalid" else "",
    )  # fmt: skip


def _of_slo(row: Mapping[str, Any], share: float, reasons: Sequence[Reason]) -> Requirement:
    poor = next((one.sentence for one in reasons if one.level is Level.INVALID and ATTAINMENT in one.metrics), "")
    value, low, high, n_eff = (float(row[name]) for name in ("value", "low", "high", "n_eff"))
    text = f"{ATTAINMENT} >= {100 * share:.6g}%"
    return Requirement(text, ATTAINMENT, "", ">=", share, value, low, high, n_eff, "share", invalid=poor)


def _why_unknown(reasons: Sequence[Reason], trials: Sequence[tuple[CellEntry, TrialEntry]]) -> str:
    """Return why a rate says nothing: it was not run to its end, or the load generator was the limit."""
    for _, trial in trials:
        if trial.status != "complete":
            return trial.reason or f"its trial is {trial.status}"
    return next((one.sentence for one in reasons if one.code in _OF_THE_CLIENT and one.level is Level.INVALID), "")


def _value(rows: Mapping[tuple[str, str], Mapping[str, Any]], metric: str, statistic: str = SCALAR) -> float:
    row = rows.get((metric, statistic))
    return math.nan if row is None else float(row["value"])


def _interval(
    rows: Mapping[tuple[str, str], Mapping[str, Any]], metric: str, statistic: str = SCALAR
) -> tuple[float, float]:
    row = rows.get((metric, statistic), {})
    return float(row.get("low", math.nan)), float(row.get("high", math.nan))


def _known(number: float) -> float | None:
    return number if math.isfinite(number) else None


def _per(amount: float, by: float) -> float | None:
    return _known(amount / by) if by > 0 else None


def check_alike(found: Sequence[Candidate]) -> None:
    """Raise UsageError if candidates were measured under other requirements or requests: no plan ranks them."""
    first = found[0]
    for one in found[1:]:
        if one.keys[0] != first.keys[0] and one.keys[0] and first.keys[0]:
            raise UsageError(
                f"{first.run} and {one.run} are of other models, {first.keys[0]} and {one.keys[0]}; plan each alone"
            )
        for name, asked in first.asks.items():
            if one.asks.get(name) != asked:
                raise UsageError(
                    f"{first.run} and {one.run} differ in `{name}`, so their plans cannot be ranked; plan each alone"
                )
