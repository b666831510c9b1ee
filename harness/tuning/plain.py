"""A tuning as plain data, which reports show and `--json` prints."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

from harness.comparison.plain import as_data as comparison_data
from harness.metrics import METRICS
from harness.quality.figures import LOAD as QUALITY
from harness.scenario.margins import Scale
from harness.tuning.axes import Kind, parse_axes
from harness.tuning.candidates import DEFAULTS, Candidate, Target
from harness.tuning.plan import Plan
from harness.tuning.race import Behind
from harness.tuning.run import Outcome, confirm_folder
from harness.tuning.verdict import tuned, verdict

FORMAT = 1


def as_data(
    plan: Plan, target: Target, candidates: Sequence[Candidate], outcome: Outcome, folder: Path
) -> dict[str, Any]:
    """Return a tuning for reports and programs.

    `value` of a candidate is the mean of its starts in the race, a geometric one of a ratio, and says nothing of its
    gain. `confirmed` is the row of the fresh pairs, as in a comparison. Unknown numbers are None.
    """
    found, number = verdict(outcome), plan.margin
    metric = METRICS[number.metric]
    comparison = None if outcome.look is None else comparison_data(outcome.look.comparison)
    best = None if outcome.best is None else candidates[outcome.best]
    used = candidates[outcome.best if found.found.uses and outcome.best is not None else DEFAULTS]
    return {
        "format": FORMAT,
        "name": plan.name,
        "folder": str(folder),
        "load": outcome.look.comparison.matched[0][0][-1] if outcome.look else "",
        "number": {
            "class": number.class_name,
            "metric": number.metric,
            "statistic": number.statistic,
            "unit": metric.unit,
            "show": metric.show,
            "direction": metric.direction.value,
            "scale": number.scale.value,
            "margin": number.size,
        },
        "over": [{"key": axis.key, "values": [*axis.values]} for axis in parse_axes(plan.over)],
        "rounds": outcome.race.standing.rounds,
        "candidates": [_candidate(one, outcome, plan) for one in candidates],
        "ended": outcome.ended,
        "word": found.found.value,
        "uses": found.found.uses,
        "why": found.why,
        "best": None if best is None else best.name,
        "confirmed": None if comparison is None else _row(comparison, outcome),
        "alpha": None if outcome.look is None else outcome.look.comparison.alpha,
        "confirming_pairs": 0 if outcome.look is None else outcome.look.pairs,
        "pairs_needed": found.pairs_needed,
        "confirmed_in": None if best is None else str(confirm_folder(Path(), best)),
        "use": _use(target, used, plan),
        "quality": [] if comparison is None else [row for row in comparison["rows"] if row["load"] == QUALITY],
        "others_worse": [] if comparison is None else _others(comparison),
        "exit_code": int(found.exit_code),
    }


def _candidate(one: Candidate, outcome: Outcome, plan: Plan) -> dict[str, Any]:
    race = outcome.race
    record, behind, out = race.records[one.number], race.standing.behind.get(one.number), race.out.get(one.number)
    values = [start.value for start in record.starts if math.isfinite(start.value)]
    return {
        "number": one.number,
        "name": one.name,
        "settings": dict(one.given),
        "starts": len(record.starts),
        "value": _mean(values, plan.margin.scale),
        "values": values,
        "fate": _fate(one, outcome),
        "why": "" if out is None else out.why,
        "behind": None if behind is None else _behind(behind, plan),
    }


def _behind(behind: Behind, plan: Plan) -> dict[str, Any]:
    """Return how a candidate differs from the best, as ratios or differences."""
    low, high = sorted((_out(behind.low, plan), _out(behind.high, plan)))
    return {"best": behind.best, "change": _out(behind.at, plan), "low": low, "high": high}


def _fate(one: Candidate, outcome: Outcome) -> str:
    """Return what became of a candidate in the race, in a word."""
    race = outcome.race
    if one.number in race.out:
        return race.out[one.number].word
    if one.number not in race.standing.left:
        return "worse"
    if not race.records[one.number].starts:
        return "not tried"
    judged = race.standing.behind or len(race.standing.left) == 1
    return "best" if judged and one.number == race.standing.left[0] else "undecided"


def _mean(values: Sequence[float], scale: Scale) -> float | None:
    if not values:
        return None
    if scale is Scale.RATIO and min(values) > 0:
        return math.exp(fmean(map(math.log, values)))
    return fmean(values)


def _out(behind: float, plan: Plan) -> float:
    """Return how a number that is behind the best by so much differs from it: a ratio, or a difference."""
    signed = behind if plan.margin.more_is_worse else -behind
    return math.exp(signed) if plan.margin.scale is Scale.RATIO else signed


def _row(comparison: dict[str, Any], outcome: Outcome) -> dict[str, Any]:
    """Return the row of the number that is tuned."""
    assert outcome.look is not None
    place = outcome.look.comparison.rows.index(tuned(outcome.look))
    found: dict[str, Any] = comparison["rows"][place]
    return found


def _others(comparison: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the numbers that decide nothing and got worse."""
    return [row for row in comparison["rows"] if not row["gates"] and row["word"] == "regressed"]


def _use(target: Target, used: Candidate, plan: Plan) -> dict[str, Any]:
    """Return how the settings to use are written: as `--set`s, and the whole command, if one starts the server."""
    assert used.scenario is not None  # what cannot be tried is not used
    axes = parse_axes(plan.over)
    sets = target.sets(axes, used.given) if used.given else []
    changed = replace(target, scenario=used.scenario)
    groups = {kind: [axis for axis in axes if axis.kind is kind and axis.key in used.given] for kind in Kind}
    snippet = [
        f"{kind}: {{{', '.join(f'{axis.name}: {used.given[axis.key]}' for axis in groups[kind])}}}"
        for kind in (Kind.OPTION, Kind.VARIABLE)
        if groups[kind]
    ]
    about = {"engine": target.block.engine, "sets": sets, "snippet": snippet}
    return {"name": used.name, **about, "command": changed.command}
