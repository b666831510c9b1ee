"""Decision table: for each model its configurations side by side, which dominate which, and what to run.

Rows come from `rows`, dominance from `dominance`, the choice from `recommendation`. Reports add the sentences.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from harness.analysis.stats import MIN_PAIRS, Measured, Ratio, ratio
from harness.analysis.summary import KEYS, Measures
from harness.metrics import METRICS, SCALAR
from harness.schedule.cells import bits, is_full
from harness.store.manifest import Manifest, NamedReference
from harness.verdict.decision.dominance import Figure, dominating, undecided
from harness.verdict.decision.memory_need import needed, remark
from harness.verdict.decision.notes import notes_on
from harness.verdict.decision.odds import Lead
from harness.verdict.decision.recommendation import choose
from harness.verdict.decision.rows import (
    ALL_USERS,
    PER_USER,
    Row,
    RowKey,
    Value,
    name_rows,
    quality_facts,
    rows_of,
    unknown,
)
from harness.verdict.limits.against import resampled_relative
from harness.verdict.limits.gate import Verdict
from harness.verdict.limits.held import SURE
from harness.verdict.reason import Effect, Validity
from harness.verdict.thresholds import SAME_MEMORY

if TYPE_CHECKING:
    import pandas as pd

_HIGHEST = "the highest precision measured"
_NOT_OF_QUALITY = f"{_HIGHEST}; quality was measured against another, which is no row of this table"
_OWN_LOADS = "all users' tokens, each engine under its own loads"


@dataclass(frozen=True, slots=True)
class Speed:
    """Number by which rows are ranked; load: None if each row has loads of its own."""

    load: str | None
    name: str
    text: str


def decide(
    manifest: Manifest,
    summary: pd.DataFrame,
    validity: Mapping[tuple[str, str], Validity],
    verdicts: Sequence[Verdict],
    facts: Mapping[tuple[str, str], Mapping[str, Any]] | None = None,
    measures: Sequence[Measures] = (),
) -> list[dict[str, Any]]:
    """Return one table for each model, in the order of the matrix. Without `measures` speeds are compared as wholes.

    A table: model; reference {label, why} or None; speed {load, name, text}; loads, their names; rows; recommendation,
    see `recommendation.Choice`; quality, facts of how it was measured; notes. A row: engine, level, variant, label,
    word (of its quality), loaded_level, device, status, reason, repetitions, values and loads, see
    `rows.Value`; validity by load; memory (name of the value that it is compared by); front (None: unknown);
    beaten_by (labels); limits ("pass", ... or ""); chosen.
    """
    rows = rows_of(manifest, summary, validity, verdicts, facts or {}, measures)
    models = dict.fromkeys(row.key[0] for row in rows)
    asked = (manifest.scenario_keys.quality or {}).get("reference")
    return [_table(model, [row for row in rows if row.key[0] == model], asked) for model in models]


def _table(model: str, rows: Sequence[Row], asked: object) -> dict[str, Any]:
    name_rows(rows)
    speed = _speed(rows)
    reference, why = _reference(rows, asked)
    _complete(rows, speed, reference, of_quality=why != _NOT_OF_QUALITY)
    figures = {row.key: _figures(row, speed) for row in rows if row.values["speed"].comparable}
    lead = _Leads(rows, speed)
    above, unclear = dominating(figures, lead.faster), undecided(figures)
    labels = {row.key: row.label for row in rows}
    for row in rows:
        if row.key in figures and (above[row.key] or row.key not in unclear):
            row.front = not above[row.key]
    choice = choose(rows, lead.of)
    return {
        "model": model,
        "reference": None if reference is None else {"label": reference.label, "why": why},
        "speed": {"load": speed.load, "name": speed.name, "text": speed.text},
        "loads": list(dict.fromkeys(load for row in rows for load in row.kinds)),
        "rows": [
            _row(row)
            | {"beaten_by": [labels[key] for key in above.get(row.key, ())], "chosen": row.label in choice.chosen}
            for row in rows
        ],
        "recommendation": choice.as_dict(),
        "quality": quality_facts(rows).stored(),
        "notes": notes_on(rows, figures),
    }


def _row(row: Row) -> dict[str, Any]:
    return {
        **dict(zip(KEYS[1:-1], row.key[1:], strict=True)),
        "label": row.label,
        "word": row.word,
        "loaded_level": row.info.level,
        "device": row.info.device,
        "status": row.status,
        "reason": row.reason,
        "repetitions": len(row.cells),
        "values": {name: value.as_dict() for name, value in row.values.items()},
        "loads": {
            load: {name: value.as_dict() for name, value in values.items()} for load, values in row.loads.items()
        },
        "validity": {load: judged.verdict.value for load, judged in row.validity.items()},
        "memory": row.memory_name,
        "front": row.front,
        "limits": row.outcome,
    }


def _complete(rows: Sequence[Row], speed: Speed, reference: Row | None, *, of_quality: bool) -> None:
    """Add speed, ratio, needed memory, and the reference's own distance from itself, which is none."""
    for row in rows:
        row.values["speed"] = _speed_of(row, speed)
    scored = any(row.values[name].shown for row in rows for name in ("kl_mean", "kl_bound"))
    if reference is not None and of_quality and scored:
        for name, value in (("kl_mean", 0.0), ("top1_agreement", 1.0), ("ppl_ratio", 1.0)):
            if math.isnan(reference.values[name].value):
                unit = reference.values[name].unit
                reference.values[name] = Value(value, value, value, unit=unit, source="the reference itself")
        reference.word = "reference"
    for row in rows:
        row.values["speed_ratio"] = _speed_ratio(row, reference, speed)
        row.values["memory_needed_bytes"] = need = needed(row)
        measured = row.values[row.memory_name]
        row.values[row.memory_name] = replace(measured, reason=remark(measured, need))


def _speed(rows: Sequence[Row]) -> Speed:
    """Take one user's speed under the lightest load that all rows have; without a common load, all users'."""
    ran = [row for row in rows if row.plans]
    common = [load for load in (ran[0].kinds if ran else ()) if all(_same_plan(ran[0], row, load) for row in ran)]
    if ran and not common:
        return Speed(None, ALL_USERS, _OWN_LOADS)
    if not common:
        return Speed(None, PER_USER, "one user's speed")
    single = [load for load in common if ran[0].kinds[load] == "single_user"]
    load = single[0] if single else min(common, key=lambda name: _concurrency(ran, name))
    known = {name: any(not math.isnan(row.loads[load][name].value) for row in ran) for name in (PER_USER, ALL_USERS)}
    if known[ALL_USERS] and not known[PER_USER]:
        return Speed(load, ALL_USERS, f"all users' tokens under {load}")
    return Speed(load, PER_USER, f"one user's speed (p50) under {load}")


def _same_plan(one: Row, other: Row, load: str) -> bool:
    """Return whether two rows were sent the same requests under a load, in every repetition that both have."""
    if load not in other.kinds:
        return False
    mine, theirs = one.plans.get(load, {}), other.plans.get(load, {})
    return all(mine[repetition] == theirs[repetition] for repetition in mine.keys() & theirs.keys())


def _concurrency(rows: Sequence[Row], load: str) -> float:
    found = [row.points(load, "mean_concurrency").value for row in rows]
    seen = [value for value in found if not math.isnan(value)]
    return sum(seen) / len(seen) if seen else math.inf


def _speed_of(row: Row, speed: Speed) -> Value:
    if speed.load is not None:
        value, (*_, why) = row.points(speed.load, speed.name), _doubted(row, speed)
        return value if value.reason or not why else replace(value, reason=why)
    found = [values[speed.name] for values in row.loads.values()]
    seen = [one for one in found if one.comparable] or [one for one in found if not math.isnan(one.value)]
    if seen:
        return max(seen, key=lambda one: one.value)
    return found[0] if found else unknown(row.reason or "nothing was measured", "tokens/s")


def _doubted(row: Row, speed: Speed) -> tuple[float, float, str]:
    """Return the ends between which doubts leave the speed, as shares of it, and the finding of the worst of them."""
    about = {(speed.name, SCALAR), (speed.name, "p50")} | ({("tpot_ms", "p50")} if speed.name == PER_USER else set())
    judged = row.validity.get(speed.load or "")
    shares = [
        (*_shares_of_speed(one), reason.sentence)
        for reason in (judged.reasons if judged else ())
        for one in reason.effects
        if (one.metric, one.statistic) in about
    ]
    if not shares:
        return 1.0, 1.0, ""
    worst = max(shares, key=lambda one: one[1] / one[0] if one[0] > 0 else math.inf)
    return min(low for low, *_ in shares), max(high for _, high, _ in shares), worst[2]


def _shares_of_speed(effect: Effect) -> tuple[float, float]:
    """Return the least and the most that a speed can be, as shares of the measured one; a time is its inverse."""
    low, high = (end / effect.value if effect.value > 0 else 1.0 for end in (effect.low, effect.high))
    low, high = min(low, 1.0), max(high, 1.0)
    return (1 / high, 1 / low if low > 0 else math.inf) if METRICS[effect.metric].unit == "ms" else (low, high)


def _reference(rows: Sequence[Row], asked: object) -> tuple[Row | None, str]:
    """Return the row that the others are compared with, and why it."""
    named = quality_facts(rows).reference or asked
    found = next((row for row in rows if _is_named(row, named)), None) if named else None
    if found is not None:
        loaded = found.reference_level
        quantized = f", itself quantized ({loaded})" if loaded and not is_full(loaded) else ""
        return found, f"the reference of quality{quantized}"
    precisions = [row for row in rows if row.plans and _precision(row)[0]]
    if not precisions:
        return None, ""
    return max(precisions, key=_precision), _NOT_OF_QUALITY if named else _HIGHEST


def _precision(row: Row) -> tuple[int, float]:
    """Return the bits of its level's name, 0 without any, then those that its weights take."""
    measured = row.values["bits_per_weight"].value
    return bits(row.info.level or row.key[2]), 0.0 if math.isnan(measured) else measured


def _is_named(row: Row, named: object) -> bool:
    """Return whether a row is meant by the names of a reference.

    A scenario may leave names out: it gives a level, "engine/level", or a mapping.
    """
    _, engine, level, variant = row.key
    if isinstance(named, NamedReference):
        return (engine, level, variant) == (named.engine or "", named.level or "", named.variant or "")
    if isinstance(named, Mapping):
        asked = (named.get("engine"), named.get("quantization"), named.get("variant"))
        return all(want is None or want == have for want, have in zip(asked, (engine, level, variant), strict=True))
    return str(named) in (level, f"{engine}/{level}", row.label, f"{engine}/{level}/{variant}")


def _speed_ratio(row: Row, reference: Row | None, speed: Speed) -> Value:
    mine = row.values["speed"]
    if reference is None:
        return unknown("no row has a level of known precision to be the reference", "ratio")
    if row is reference:
        return Value(1.0, unit="ratio", source="the reference") if not math.isnan(mine.value) else mine
    theirs = reference.values["speed"]
    found, _ = _ratio(row, reference, speed)
    if not found.value > 0:
        why = mine.reason if math.isnan(mine.value) else f"the reference's speed is unknown: {theirs.reason}"
        return unknown(why or found.method, "ratio")
    doubt = next((one.reason for one in (mine, theirs) if one.invalid), "")
    n = min(mine.n, theirs.n)
    return Value(found.value, found.low, found.high, "point", n, "ratio", found.method, doubt, bool(doubt))


def _ratio(row: Row, other: Row, speed: Speed) -> tuple[Ratio, int]:
    """Return the ratio of two speeds, and from how many repetitions it is; paired if both have the same requests."""
    pairs, resampled = [], None
    if speed.load is not None and speed.name == PER_USER:
        mine, theirs = row.speeds.get(speed.load, {}), other.speeds.get(speed.load, {})
        common = [repetition for repetition in mine if repetition in theirs]
        pairs = [(mine[repetition], theirs[repetition]) for repetition in common]
        own, base = row.measures.get(speed.load, {}), other.measures.get(speed.load, {})
        if len(pairs) < MIN_PAIRS:
            both = [(own[repetition], base[repetition]) for repetition in common if repetition in own.keys() & base]
            resampled = resampled_relative(PER_USER, "p50", both)
    speeds = [Measured(one.value, one.low, one.high) for one in (row.values["speed"], other.values["speed"])]
    return ratio(speeds[0], speeds[1], pairs, resampled), len(pairs)


class _Leads:
    """Ratios of the rows' speeds, each computed once."""

    def __init__(self, rows: Sequence[Row], speed: Speed) -> None:
        self._rows = {row.key: row for row in rows}
        self._speed = speed
        self._ends = {row.key: _doubted(row, speed)[:2] for row in rows}
        self._found: dict[tuple[RowKey, RowKey], Lead] = {}

    def of(self, row: Row, other: Row) -> Lead:
        """Return the ratio of a speed to a lower one."""
        keys = row.key, other.key
        if keys not in self._found:
            found, pairs = _ratio(row, other, self._speed)
            repetitions = pairs or min(len(row.cells), len(other.cells))
            doubt = self._ends[row.key][0] / self._ends[other.key][1]
            self._found[keys] = Lead(found.value, found.low, repetitions, paired=pairs >= MIN_PAIRS, doubt=doubt)
        return self._found[keys]

    def faster(self, one: RowKey, other: RowKey) -> bool:
        """Return whether the first is surely the faster one."""
        first, second = self._rows[one], self._rows[other]
        return first.values["speed"].value > second.values["speed"].value and self.of(first, second).certainty == SURE


def _figures(row: Row, of: Speed) -> dict[str, Figure]:
    """Return the numbers that a row is compared by; the ends of its speed are those that doubts leave.

    Memory of GPUs and of the host differ in kind, and the distance from a quantized reference is no quality.
    """
    speed, memory, divergence = (row.values[name] for name in ("speed", "memory_needed_bytes", "kl_mean"))
    least, most, _ = _doubted(row, of)
    wider = replace(speed, low=speed.low * least, high=speed.high * most)
    found = {"speed": _figure(wider, more_is_better=True)}
    if memory.comparable:
        found[row.memory_name] = Figure.alike_within(memory.value, SAME_MEMORY.value)
    if divergence.comparable and (row.reference_level is None or is_full(row.reference_level)):
        found["quality"] = _figure(divergence, more_is_better=False)
    return found


def _figure(value: Value, *, more_is_better: bool) -> Figure:
    """Return a number with its interval; an open one tells nothing clearly."""
    ends = (value.low, value.high) if value.bound == "point" else (math.nan, math.nan)
    return Figure.of(value.value, *ends, more_is_better=more_is_better)
