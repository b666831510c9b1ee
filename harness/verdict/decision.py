"""The decision table: for each model its engines and levels side by side, who is beaten, and what to run.

Rows come from `decision_rows`, dominance from `pareto`, the sentence from `recommendation`. Plain values only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.analysis.samples.memory import SHARED_IN_EACH, SHARED_ONCE
from harness.analysis.stats import Measured, ratio
from harness.analysis.summary import KEYS
from harness.schedule.cells import bits, is_full
from harness.store.manifest import Manifest, NamedReference
from harness.verdict.decision_rows import Row, Value, is_known, known, name_rows, quality_facts, rows_of, unknown
from harness.verdict.dominance import Figure, beaten_by
from harness.verdict.gate import Verdict
from harness.verdict.memory_need import RESERVED, needed, remark
from harness.verdict.reason import Level, Validity
from harness.verdict.recommendation import UNRESERVED, WHILE_LOADING, Option, recommend
from harness.verdict.setting_notes import setting_notes
from harness.verdict.thresholds import SAME_MEMORY

if TYPE_CHECKING:
    import pandas as pd

_PER_USER, _ALL_USERS = "output_tokens_per_s_per_user", "output_tokens_per_s"
_HIGHEST = "the highest precision measured"
_NOT_OF_QUALITY = f"{_HIGHEST}; quality was measured against another, which is no row of this table"
_OWN_LOADS = "all users' tokens, each engine under its own loads"


@dataclass(frozen=True, slots=True)
class Speed:
    """By which number rows are told faster. load: None where each row has loads of its own."""

    load: str | None
    name: str
    text: str


def decide(
    manifest: Manifest,
    summary: pd.DataFrame,
    validity: Mapping[tuple[str, str], Validity],
    verdicts: Sequence[Verdict],
    facts: Mapping[tuple[str, str], Mapping[str, Any]] | None = None,
) -> list[dict[str, Any]]:
    """One table for each model, in the order of the matrix.

    A table: model; reference {label, why} or None; speed {load, name, text}; loads, their names; rows; recommendation
    {outcome, sentence, chosen, out, closest}; quality, facts of how it was measured; notes. A row: engine, level,
    variant, label, word (of its quality), loaded_level, device, status, reason, repetitions, values and loads (see
    `decision_rows`), validity by load, memory (the name of the value it is compared by), front (None: it cannot be
    judged), beaten_by, limits ("pass", ... or ""), chosen.
    """
    rows = rows_of(manifest, summary, validity, facts or {})
    models = dict.fromkeys(row.key[0] for row in rows)
    asked = (manifest.scenario_keys.quality or {}).get("reference")
    return [_table(model, [row for row in rows if row.key[0] == model], verdicts, asked) for model in models]


def _table(model: str, rows: Sequence[Row], verdicts: Sequence[Verdict], asked: object) -> dict[str, Any]:
    name_rows(rows)
    speed = _speed(rows)
    reference, why = _reference(rows, asked)
    for row in rows:
        row.values["speed"] = _speed_of(row, speed)
    for row in rows:
        row.values["speed_ratio"] = _speed_ratio(row, reference, speed)
    if reference is not None and why != _NOT_OF_QUALITY and _is_scored(rows):
        _complete(reference)
    for row in rows:
        measured = _memory_name(row)
        row.values["memory_needed_bytes"] = need = needed(row, measured)
        row.values[measured] = row.values[measured] | {"reason": remark(row.values[measured], need)}
    figures = {row.key: _figures(row) for row in rows if row.values["speed"]["value"] is not None}
    beaten = beaten_by(figures)
    own = {row.key: [one for one in verdicts if one.keys[:-1] == row.key] for row in rows}
    options = [
        Option(row.label, own[row.key], row.values["speed"], _memory(row), row.values["kl_mean"], _out(row), front)
        for row in rows
        for front in [row.key in beaten and not beaten[row.key]]
    ]
    advice = recommend(options, speed.text)
    labels = {row.key: row.label for row in rows}
    shown = [
        _row(row, [labels[key] for key in beaten.get(row.key, ())], own[row.key], advice["chosen"]) for row in rows
    ]
    for entry, row in zip(shown, rows, strict=True):
        entry["front"] = None if row.key not in beaten else not beaten[row.key]
    return {
        "model": model,
        "reference": None if reference is None else {"label": reference.label, "why": why},
        "speed": {"load": speed.load, "name": speed.name, "text": speed.text},
        "loads": list(dict.fromkeys(load for row in rows for load in row.kinds)),
        "rows": shown,
        "recommendation": advice,
        "quality": quality_facts(rows).stored(),
        "notes": [*_notes(rows, figures), *setting_notes(rows)],
    }


def _row(row: Row, beaten_by: Sequence[str], verdicts: Sequence[Verdict], chosen: Sequence[str]) -> dict[str, Any]:
    found = {verdict.outcome.value for verdict in verdicts}
    limits = next((word for word in ("fail", "invalid", "cannot_tell", "pass") if word in found), "")
    return {
        **dict(zip(KEYS[1:-1], row.key[1:], strict=True)),
        "label": row.label,
        "word": row.word,
        "loaded_level": row.info.level,
        "device": row.info.device,
        "status": row.status,
        "reason": row.reason,
        "repetitions": len(row.cells),
        "values": row.values,
        "loads": row.loads,
        "validity": {load: level.value for load, level in row.validity.items()},
        "memory": _memory_name(row),
        "front": None,
        "beaten_by": list(beaten_by),
        "limits": limits,
        "chosen": row.label in chosen,
    }


def _speed(rows: Sequence[Row]) -> Speed:
    """One user's speed where a load has but one; else under the lightest load that all rows have; else all users'."""
    ran = [row for row in rows if row.plans]
    common = [load for load in (ran[0].kinds if ran else ()) if all(_same_plan(ran[0], row, load) for row in ran)]
    single = [load for load in common if ran[0].kinds[load] == "single_user"]
    if ran and not common:
        return Speed(None, _ALL_USERS, _OWN_LOADS)
    if not common:
        return Speed(None, _PER_USER, "one user's speed")
    load = single[0] if single else min(common, key=lambda name: _concurrency(ran, name))
    streamed = any(row.loads[load][_PER_USER]["value"] is not None for row in ran)
    streamed |= all(row.loads[load][_ALL_USERS]["value"] is None for row in ran)
    if not streamed:
        return Speed(load, _ALL_USERS, f"all users' tokens under {load}")
    return Speed(load, _PER_USER, f"one user's speed (p50) under {load}")


def _same_plan(one: Row, other: Row, load: str) -> bool:
    """Whether two rows were sent the same requests under a load, in every repetition that both have."""
    if load not in other.kinds:
        return False
    mine, theirs = one.plans.get(load, {}), other.plans.get(load, {})
    return all(mine[repetition] == theirs[repetition] for repetition in mine.keys() & theirs.keys())


def _concurrency(rows: Sequence[Row], load: str) -> float:
    found = [row.points(load, "mean_concurrency")["value"] for row in rows]
    seen = [float(value) for value in found if value is not None]
    return sum(seen) / len(seen) if seen else float("inf")


def _speed_of(row: Row, speed: Speed) -> Value:
    if speed.load is not None:
        return row.points(speed.load, speed.name)
    found = [values[speed.name] for values in row.loads.values()]
    seen = [one for one in found if one["value"] is not None]
    if seen:
        return max(seen, key=lambda one: float(one["value"]))
    return found[0] if found else unknown(row.reason or "nothing was measured", "tokens/s")


def _reference(rows: Sequence[Row], asked: object) -> tuple[Row | None, str]:
    """The row that the others are held against, and why it."""
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
    """The bits of its level's name, 0 where it has none; of the same by name, those that its weights really take."""
    measured = row.values["bits_per_weight"]["value"]
    return bits(row.info.level or row.key[2]), measured or 0.0


def _is_named(row: Row, named: object) -> bool:
    """named: what was the reference, by all its names; else as a scenario asks for one, where what it leaves out may be
    anything: a level, "engine/level", or both and perhaps a variant in a mapping.
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
        return known(1.0, unit="ratio", source="the reference") if mine["value"] is not None else mine
    theirs = reference.values["speed"]
    if mine["value"] is None or theirs["value"] is None:
        return unknown(mine["reason"] or f"the reference's speed is unknown: {theirs['reason']}", "ratio")
    pairs = []
    if speed.load is not None and speed.name == _PER_USER:
        own, other = row.speeds.get(speed.load, {}), reference.speeds.get(speed.load, {})
        pairs = [(own[repetition], other[repetition]) for repetition in own if repetition in other]
    found = ratio(_number(mine), _number(theirs), pairs)
    if not found.value > 0:
        return unknown(found.method, "ratio")
    return known(found.value, found.low, found.high, unit="ratio", source=found.method, n=min(mine["n"], theirs["n"]))


def _number(value: Value) -> Measured:
    ends = [float("nan") if value[name] is None else float(value[name]) for name in ("value", "low", "high")]
    return Measured(*ends)


def _is_scored(rows: Sequence[Row]) -> bool:
    return any(is_known(row.values[name]) for row in rows for name in ("kl_mean", "kl_bound"))


def _complete(reference: Row) -> None:
    """The reference differs from itself by nothing, where it was not scored against itself."""
    for name, value in (("kl_mean", 0.0), ("top1_agreement", 1.0), ("ppl_ratio", 1.0)):
        if reference.values[name]["value"] is None:
            unit = reference.values[name]["unit"]
            reference.values[name] = known(value, value, value, unit=unit, source="the reference itself")
    reference.word = "reference"


def _memory(row: Row) -> Value:
    return row.values["memory_needed_bytes"]


def _memory_name(row: Row) -> str:
    """The value that was read: that of GPUs where the engine uses them, else that of its processes."""
    device = row.info.device
    used = is_known(row.values["gpu_memory_peak_bytes"]) and (device is None or not device.startswith("cpu"))
    own = "memory_peak_bytes" if "memory_peak_bytes" in row.values else "rss_peak_bytes"
    return "gpu_memory_peak_bytes" if used else own


def _figures(row: Row) -> dict[str, Figure]:
    """What a row is compared by. Memory of GPUs and of the host are not the same thing, and the distance from what is
    itself quantized is no quality.
    """
    memory, divergence = _memory(row), row.values["kl_mean"]
    from_full = row.reference_level is None or is_full(row.reference_level)
    found = {"speed": _figure(row.values["speed"], more_is_better=True)}
    if memory["value"] is not None:
        found[_memory_name(row)] = Figure.alike_within(memory["value"], SAME_MEMORY.value, more_is_better=False)
    if divergence["value"] is not None and from_full:
        found["quality"] = _figure(divergence, more_is_better=False)
    return found


def _figure(value: Value, *, more_is_better: bool) -> Figure:
    number = _number(value)
    return Figure.of(number.value, number.low, number.high, more_is_better=more_is_better)


def _out(row: Row) -> str:
    """Why a row cannot be chosen whatever the limits say; "" if it can."""
    if not row.plans or row.status in ("skipped", "failed"):
        return f"{row.status}: {row.reason}" if row.reason else row.status if row.status != "complete" else "no load"
    spoiled = [load for load, level in row.validity.items() if level is Level.INVALID]
    return f"its trial {spoiled[0]} is invalid" if row.values["speed"]["value"] is None and spoiled else ""


def _keeps_prompts(row: Row) -> bool:
    """Whether what it computed of prompts fills memory, which a level or a size of model has no part in."""
    options = row.info.options
    return row.key[1] == "llama-server" and bool(options.get("prefix_cache")) and options.get("cache_ram_mib") is None


def _notes_of_quality(rows: Sequence[Row], figures: Mapping[Any, Mapping[str, Figure]]) -> list[str]:
    """Which rows are compared without their quality, and what is known of it."""
    quantized = {row.reference_level for row in rows if row.reference_level and not is_full(row.reference_level)}
    if quantized and _is_scored(rows):
        what = f"the reference is itself quantized ({', '.join(sorted(quantized))})"
        return [f"{what}: what is told is the distance from it, no quality, and rows are not compared by it"]
    without = [row for row in rows if "quality" not in figures[row.key]]
    bounded = [row.label for row in without if is_known(row.values["kl_mean"])]
    unknown_of = [row.label for row in without if row.label not in bounded]
    if rows and len(unknown_of) == len(rows):
        return ["quality was not measured: rows are compared by speed and memory only"]
    notes = []
    if bounded:
        notes.append(f"compared by speed and memory only, for of their KL a lower bound is known: {', '.join(bounded)}")
    if unknown_of:
        notes.append(f"compared by speed and memory only, for their quality is unknown: {', '.join(unknown_of)}")
    return notes


def _notes(rows: Sequence[Row], figures: Mapping[Any, Mapping[str, Figure]]) -> list[str]:
    """What the reader must know of the comparison."""
    notes = []
    kinds = {name for own in figures.values() for name in own}
    notes += _notes_of_quality([row for row in rows if row.key in figures], figures)
    if {"memory_peak_bytes", "gpu_memory_peak_bytes"} <= kinds:
        notes.append("rows that use a GPU and rows that do not are not compared: their memory is not the same thing")
    inside = [row.label for row in rows if row.info.in_process]
    if inside and len(inside) < len(rows):
        notes.append(f"the memory of engines in process holds Python and our own client too: {', '.join(inside)}")
    growing = [row.label for row in rows if _keeps_prompts(row)]
    if growing:
        what = (
            "the peak memory of llama-server holds the prompts that it keeps for reuse, more with every request up to"
        )
        notes.append(f"{what} 8 GiB (`cache_ram_mib: 0` keeps none): {', '.join(growing)}")
    return [*notes, *_notes_of_memory(rows)]


def _notes_of_memory(rows: Sequence[Row]) -> list[str]:
    """Where the memory that rows are compared by is not what was read while they served, or read otherwise."""
    notes = []
    needs = {row.label: row.values["memory_needed_bytes"] for row in rows}
    unknown = [label for label, need in needs.items() if need["reason"].startswith(RESERVED)]
    if unknown:
        what = "the memory that these take is reserved by a setting, whatever they need, so it is not compared"
        notes.append(f"{what}: {', '.join(unknown)}")
    if unreserved := [label for label, need in needs.items() if need["source"] == UNRESERVED]:
        notes.append(f"the memory of these is compared {UNRESERVED}: {', '.join(unreserved)}")
    if loading := [label for label, need in needs.items() if need["source"] == WHILE_LOADING]:
        notes.append(f"these take more memory while they load, and are compared by that: {', '.join(loading)}")
    sources = {row.label: row.values.get("memory_peak_bytes", {}).get("source") for row in rows}
    if {SHARED_ONCE, SHARED_IN_EACH} <= set(sources.values()):
        summed = [label for label, source in sources.items() if source == SHARED_IN_EACH]
        notes.append(
            f"of these, pages that processes share are counted in each, for no PSS was read: {', '.join(summed)}"
        )
    return notes
