"""Comparison of two runs as tables and sentences; its input is the plain data of `harness compare --json`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from reports.data import KEYS
from reports.format import MOST_DECIMALS, THIN, UNKNOWN, amount, grouped
from reports.labels import RESULTS
from reports.tables.base import Cell, Table

TONES = {"regressed": "bad", "worse": "bad", "improved": "good", "cannot tell": "doubtful"}
VERDICTS = {
    "regressed": "REGRESSED",
    "improved": "IMPROVED",
    "unchanged": "UNCHANGED",
    "no worse": "NO WORSE",
    "cannot tell": "CANNOT TELL",
}
_HEADS = {(one.metric, one.statistic): " ".join(filter(None, (one.over, one.head))) for one in RESULTS}
_HEADS |= {("kl_mean", "value"): "mean KL", ("top1_agreement", "value"): "same top token"}
_MOST_FACTS = 8
USUAL_PAIRS = 6
_WITH_UNIT = ("ms", "s", "nats")


def gating(data: Mapping[str, Any]) -> Table:
    """Return the numbers that decide the verdict."""
    return _table(data, "Gate", gates=True)


def others(data: Mapping[str, Any]) -> Table:
    """Return the numbers that are shown and decide nothing."""
    return _table(data, "Not in the verdict", gates=False)


def _table(data: Mapping[str, Any], title: str, *, gates: bool) -> Table:
    head = ("load", "number", "base", "head", "change", interval_name(data), "margin", "least seen", "verdict")
    rows = [row for row in data["rows"] if row["gates"] is gates]
    found = [_cells(row, name) for row, name in zip(rows, loads_of(rows), strict=True)]
    return Table(title, head, found, texts=2)


def interval_name(data: Mapping[str, Any]) -> str:
    """Return the head of the intervals: each end holds with a chance of 1 - alpha, both with 1 - 2 alpha."""
    return f"{100 * (1 - 2 * data['alpha']):.3g} % interval"


def many(found: Sequence[Mapping[str, Any]]) -> Table:
    """Return a row for each comparison with the same baseline: its word, and the number that it is about."""
    rows = []
    for data in found:
        word, why, tone = verdict(data)
        side = data["head"]
        labels = ", ".join(f"{name}={value}" for name, value in side["labels"].items())
        made = side["created_utc"][:16].replace("T", " ")
        rows.append((Cell(side["name"]), Cell(made), Cell(labels), Cell(word, tone=tone), Cell(why)))
    title = f"{found[0]['base']['name']} → {len(found)} runs"
    return Table(title, ("run", "made", "labels", "verdict", "because"), rows, texts=5)


def counted(found: Sequence[Mapping[str, Any]]) -> str:
    """Return how many comparisons have each word, the worst first."""
    words = [data["word"] for data in found]
    return " · ".join(f"{words.count(word)} {word}" for word in VERDICTS if word in words)


def loads_of(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the load of each row, with what tells its configuration from the others."""
    differ = [key for key in KEYS[:-1] if len({row[key] for row in rows}) > 1]
    return [" ".join(filter(None, (*(row[key] for key in differ), row["load"]))) for row in rows]


def _cells(row: Mapping[str, Any], name: str) -> tuple[Cell, ...]:
    word = row["word"] if row["gates"] or row["word"] in ("regressed", "improved") else ""
    word = {"regressed": "worse", "improved": "better"}.get(word, word) if not row["gates"] else word
    return (
        Cell(name),
        Cell(number_name(row)),
        *map(Cell, _both(row)),
        Cell(_change(row, "change")),
        Cell(_interval(row)),
        Cell(_margin(row)),
        Cell(_seen(row)),
        Cell(word, tone=TONES.get(row["word"], "") if word else "", why=row["doubt"] or row["method"]),
    )


def number_name(row: Mapping[str, Any]) -> str:
    """Return the name of a number as the results table has it: "TTFT p50"."""
    usual = f"{row['metric']} {row['statistic']}" if row["statistic"] != "value" else row["metric"]
    known = _HEADS.get((row["metric"], row["statistic"]))
    twin = _HEADS.get((row["metric"].replace("_service_ms", "_ms"), row["statistic"]))
    name = known or (f"{twin} from sent" if twin else usual)
    return name if row["class"] == "all" else f"{row['class']} {name}"


def _both(row: Mapping[str, Any]) -> tuple[str, str]:
    """Return both values, with as many decimals as the smaller needs for three digits, if they are of one size."""
    values, unit = [row[side]["value"] for side in ("base", "head")], row["unit"]
    known = [value for value in values if value is not None and value > 0]
    decimals = max(0, 2 - math.floor(math.log10(min(known)))) if len(known) == 2 else MOST_DECIMALS + 1
    if decimals > MOST_DECIMALS or _show(row) not in ("time", "number") or max(known) >= 10 * min(known):
        return _value(values[0], _show(row), unit), _value(values[1], _show(row), unit)
    behind = f"{THIN}{unit}" if unit in _WITH_UNIT else ""
    base, head = (f"{grouped(f'{value:.{decimals}f}')}{behind}" for value in known)
    return base, head


def _value(value: float | None, show: str, unit: str) -> str:
    if value is None:
        return UNKNOWN
    text = amount(value, show=show)
    return f"{text}{THIN}{unit}" if unit in _WITH_UNIT else text


def _change(row: Mapping[str, Any], key: str) -> str:
    return change_text(row[key], row["scale"], row["unit"])


def change_text(change: float | None, scale: str, of: str = "share") -> str:
    """Return a change with its sign: "+18.7 %", points of a share: "+0.5 pp", or of a divergence: "+0.0021 nats"."""
    if change is None:
        return UNKNOWN
    if of == "nats" and scale == "difference":
        return f"{change:+.2g}{THIN}nats".replace("-", "−") if change else f"0{THIN}nats"
    size = (change - 1) * 100 if scale == "ratio" else change * 100
    unit = "%" if scale == "ratio" else "pp"
    if abs(size) < 0.05 and unit == "%":
        return f"0{THIN}%"
    digits = 1 if abs(size) < 100 else 0
    return f"{'+' if size > 0 else '−' if size < 0 else ''}{abs(size):.{digits}f}{THIN}{unit}"


def _interval(row: Mapping[str, Any]) -> str:
    if row["low"] is None or row["high"] is None:
        return UNKNOWN
    return f"{_change(row, 'low')} to {_change(row, 'high')}"


def _margin(row: Mapping[str, Any]) -> str:
    return _change(row, "worse_beyond")


def _seen(row: Mapping[str, Any]) -> str:
    seen = row["least_seen"]
    return UNKNOWN if seen is None else _change(row, "least_seen").lstrip("+")


def title(data: Mapping[str, Any]) -> str:
    """Return both sides in one line."""
    return f"{_named(data['base'])} → {_named(data['head'])}"


def _named(side: Mapping[str, Any]) -> str:
    labels = ", ".join(f"{name}={value}" for name, value in side["labels"].items())
    made = side["created_utc"][:16].replace("T", " ")
    about = ", ".join(filter(None, (made, *side["engines"], origin_name(side), labels)))
    return f"{side['name']} ({about})"


def origin_name(side: Mapping[str, Any]) -> str:
    """Return the other tool whose file a side is, with its version; "" for a run of our own."""
    origin = side.get("origin")
    return "" if origin is None else " ".join(filter(None, (origin["tool"], origin["version"])))


def verdict(data: Mapping[str, Any]) -> tuple[str, str, str]:
    """Return word, reason and tone of the whole comparison."""
    word = data["word"]
    words = (word, "worse") if word == "regressed" else (word,)
    gating = [row for row in data["rows"] if row["gates"]]
    rows = [one for one in zip(gating, loads_of(gating), strict=True) if one[0]["word"] in words]
    if not rows:
        return VERDICTS[word], "", TONES.get(word, "")
    told, load = max(rows, key=lambda one: _size(one[0]))
    more = f" · {len(rows) - 1} more" if len(rows) > 1 and word in ("regressed", "improved", "cannot tell") else ""
    return VERDICTS[word], sentence(told, load) + more, TONES.get(word, "")


def sentence(row: Mapping[str, Any], load: str = "") -> str:
    """Return a number on both sides with its change and load; or why its data is poor. load: as `loads_of` names it."""
    before, after = _both(row)
    change = _change(row, "change")
    sure = row["method"] if row["low"] is None and row["change"] is not None else ""
    found = f"{number_name(row)} {before} → {after}, {change} [{sure or _interval(row)}], {load or row['load']}"
    return row["doubt"] or found


def _show(row: Mapping[str, Any]) -> str:
    return {"ms": "time"}.get(row["unit"], str(row["show"]))


def _size(row: Mapping[str, Any]) -> float:
    change = row["change"]
    if change is None:
        return -1.0
    return abs(math.log(change)) if row["scale"] == "ratio" else abs(float(change))


def lines(data: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the sentences below the tables, each with its label."""
    found = [("STARTS", _starts(data))]
    found += [("QUALITY", quality_sentence(one)) for one in data["quality"]]
    found += [("CACHE", f"{data[one['side']]['name']}: {one['sentence']}") for one in data["cache_audit"]]
    if (settles := settling(data)) is not None:
        found.append(("SETTLES IT", settles))
    differs = data["differs"]
    facts = [
        f"{one['what']}{' (' + one['load'] + ')' if one['load'] else ''}: {one['base']} → {one['head']}"
        for one in differs
    ]
    if facts:
        more = f" · {len(facts) - _MOST_FACTS} more" if len(facts) > _MOST_FACTS else ""
        found.append(("DIFFERS", " · ".join(facts[:_MOST_FACTS]) + more))
    doubts = dict.fromkeys(row["doubt"] for row in data["rows"] if row["doubt"])
    found += [("POOR DATA", doubt) for doubt in doubts]
    found += _origins(data)
    if data["missing"]:
        found.append(("LEFT OUT", " · ".join(data["missing"][:_MOST_FACTS])))
    return found


def quality_sentence(one: Mapping[str, Any]) -> str:
    """Return how a configuration was scored on both sides."""
    where = f"{one['configuration']}: " if one["configuration"] else ""
    if one["reason"]:
        return f"{where}{one['reason']}"
    scored = f"{where}{one['positions']:,} positions in {one['chunks']} chunks, both sides against {one['reference']}"
    needed = one["tokens_needed"]
    return scored if needed is None else f"{scored}; about {needed:,} tokens settle it (`quality.tokens`)"


def settling(data: Mapping[str, Any]) -> str | None:
    """Return what would tell more; None if nothing is open, or a side is the file of another tool."""
    if data["pairs"]:
        needed = [row["pairs_needed"] for row in data["rows"] if row["gates"] and row["pairs_needed"]]
        return f"about {max(needed)} pairs of starts, as much as these differ" if needed else None
    sides = [data[side] for side in ("base", "head")]
    if min(data["starts"]) > 1 or any(side.get("origin") for side in sides):
        return None
    minutes = USUAL_PAIRS * sum(side["seconds"] for side in sides) / 60
    took = f", about {minutes:.0f} min" if minutes >= 1 else ""
    return f"{USUAL_PAIRS} pairs of starts in turns{took}: `harness run SCENARIO --against BASE --pairs {USUAL_PAIRS}`"


def _origins(data: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return what is to be known of the files of other tools; equal notes of both sides once."""
    sides = [side for side in (data["base"], data["head"]) if side.get("origin") is not None]
    names = [
        f"{side['name']} ({origin_name(side)}{', values only' if side['origin']['values_only'] else ''})"
        for side in sides
    ]
    if not sides:
        return []
    notes = dict.fromkeys(note for side in sides for note in side["origin"]["notes"])
    return [("OTHER TOOL", f"Load generator not verified: {', '.join(names)}."), ("MEANING", " ".join(notes))]


def _starts(data: Mapping[str, Any]) -> str:
    """Return what may be said of builds, and not of these starts alone."""
    if not data["pairs"]:
        return starts_sentence(data["starts"])
    how = f"both sides up, {data['blocks']} blocks of each in turns" if data["blocks"] else "in turns"
    if not data["were_started"]:
        return f"{data['pairs']} pairs, {how}. These servers ran already: another start of them may differ."
    return f"{data['pairs']} pairs of starts, {how}: what starts and drift change is in the intervals."


def starts_sentence(starts: Sequence[int]) -> str:
    """Return what the numbers of starts that are no pairs allow to be said."""
    base, head = starts
    if base == head == 1:
        return "One start of each: this is about two runs, not two builds. Another start may differ."
    if min(base, head) < 4:
        return f"{base} and {head} starts: too few to say what another start changes."
    return f"{base} and {head} starts, one side after the other: a drift of the machine between would look the same."
