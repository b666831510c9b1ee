"""The tables every format shows: what ran and how fast, limits, validity, errors, circumstances."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from reports.data import ALL, KEYS, POOLED, ReportData, keys_of, place
from reports.format import THIN, UNKNOWN, amount, count, estimate, interval, seconds


@dataclass(frozen=True, slots=True)
class Cell:
    """text, with a smaller detail; tone: "good", "bad", "doubtful" or "". note: number of a footnote."""

    text: str
    detail: str = ""
    tone: str = ""
    note: int | None = None


@dataclass(frozen=True, slots=True)
class Table:
    """A table with footnotes; wide: how many of the leading columns are texts, the others are numbers."""

    title: str
    head: tuple[str, ...]
    rows: Sequence[tuple[Cell, ...]]
    notes: list[str] = field(default_factory=list)
    texts: int = 1


@dataclass(frozen=True, slots=True)
class Column:
    """A column of the main table: a metric and a statistic."""

    head: str
    metric: str
    statistic: str = "value"
    show: str = "number"


HEADLINE = (
    Column("TTFT p50, ms", "ttft_ms", "p50"),
    Column("TTFT p95, ms", "ttft_ms", "p95"),
    Column("TPOT p50, ms", "tpot_ms", "p50"),
    Column("E2E p95, ms", "e2e_ms", "p95"),
    Column("output tokens/s", "output_tokens_per_s"),
    Column("requests/s", "completed_rps"),
    Column("errors", "error_rate", show="share"),
    Column("memory", "rss_peak_bytes", show="bytes"),
    Column("GPU memory", "gpu_memory_peak_bytes", show="bytes"),
    Column("load, s", "load_s"),
)
TONES = {
    "valid": "good",
    "warn": "doubtful",
    "invalid": "bad",
    "pass": "good",
    "fail": "bad",
    "cannot_tell": "doubtful",
    "complete": "good",
    "failed": "bad",
    "interrupted": "bad",
    "skipped": "",
    "pending": "",
}
MOST_BURSTS = 12
NO_RESULT = "an invalid trial has no result: what was seen, and what to do, stands under Validity"
_OPTIONAL = ("gpu_memory_peak_bytes", "load_s")


def pooled_rows(data: ReportData) -> dict[tuple[str, ...], dict[str, Any]]:
    """The pooled rows of the summary by (model, engine, level, variant, load, class, metric, statistic)."""
    pooled = data.summary[data.summary["repetition"] == POOLED]
    names = (*KEYS, "class", "metric", "statistic")
    return {tuple(str(row[name]) for name in names): row for row in pooled.to_dict("records")}  # type: ignore[misc]


def groups(data: ReportData) -> dict[tuple[str, ...], list[tuple[dict[str, Any], dict[str, Any]]]]:
    """Repetitions of the same trial together, in order."""
    found: dict[tuple[str, ...], list[tuple[dict[str, Any], dict[str, Any]]]] = {}
    for cell, trial in data.trials():
        found.setdefault(keys_of(cell, trial), []).append((cell, trial))
    return found


def headline(data: ReportData) -> Table:
    """One row per cell and load, and one per class of its traffic."""
    rows = pooled_rows(data)
    present = {key[-2] for key in rows}
    columns = [column for column in HEADLINE if column.metric not in _OPTIONAL or column.metric in present]
    notes: list[str] = []
    lines = []
    for keys, trials in groups(data).items():
        if all(trial["status"] in ("pending", "skipped") for _, trial in trials):
            continue
        missing = next((facts for facts in _missing_of(data, trials) if facts), None)
        verdict = data.verdict_of(keys)
        for name in (ALL, *_classes(rows, keys)):
            label = keys[-1] if name == ALL else f"{keys[-1]}, class {name}"
            judged = Cell(verdict.upper() or UNKNOWN, tone=TONES.get(verdict, "")) if name == ALL else Cell("")
            if verdict == "invalid":
                values = [Cell(UNKNOWN, note=_note(notes, NO_RESULT)) for _ in columns]
            else:
                values = [_value(rows, (*keys, name), column, missing, notes, name == ALL) for column in columns]
            lines.append((Cell(place(keys)), Cell(label), judged, *values))
    head = ("cell", "load", "validity", *(column.head for column in columns))
    return Table("Results", head, lines, notes, texts=3)


def _missing_of(data: ReportData, trials: Sequence[tuple[dict[str, Any], dict[str, Any]]]) -> Iterator[dict[str, str]]:
    return (data.facts_of(cell["id"], trial["id"]).get("missing", {}) for cell, trial in trials)


def _classes(rows: dict[tuple[str, ...], dict[str, Any]], keys: tuple[str, ...]) -> list[str]:
    return sorted({key[5] for key in rows if key[:5] == keys and key[5] != ALL})


def _note(notes: list[str], text: str) -> int:
    """The number of a footnote, which is added if it is not there yet."""
    if text not in notes:
        notes.append(text)
    return notes.index(text) + 1


def _value(
    rows: dict[tuple[str, ...], dict[str, Any]],
    keys: tuple[str, ...],
    column: Column,
    missing: dict[str, str] | None,
    notes: list[str],
    with_note: bool,
) -> Cell:
    row = rows.get((*keys, column.metric, column.statistic))
    text = estimate(row, column.show)
    if text != UNKNOWN or not with_note:
        return Cell(text if row is not None or with_note else "", interval(row, column.show))
    if missing is None:
        return Cell(UNKNOWN)
    reason = f"{column.metric}: {missing.get(column.metric, 'no request gave one')}"
    if row is not None:
        reason = f"{column.metric} {column.statistic}: too few requests even for a bound"
    return Cell(UNKNOWN, note=_note(notes, reason))


def limits(data: ReportData) -> Table:
    """One row per limit and trial."""
    shows = {metric["name"]: (metric["show"], metric["unit"]) for metric in data.definitions}
    lines = []
    for verdict in data.verdicts:
        show, unit = shows.get(verdict["metric"], ("number", ""))
        value, low, high = (_nan(verdict[name]) for name in ("value", "low", "high"))
        seen = amount(value, low, high, show) if verdict["outcome"] != "invalid" else UNKNOWN
        if seen != UNKNOWN and show in ("time", "number"):
            seen += f"{THIN}{unit}"
        outcome = Cell(verdict["outcome"].replace("_", " ").upper(), tone=TONES.get(verdict["outcome"], "doubtful"))
        keys = tuple(verdict[key] for key in KEYS)
        lines.append(
            (outcome, Cell(verdict["limit"]), Cell(f"{place(keys)}, {keys[-1]}"), Cell(seen), Cell(verdict["sentence"]))
        )
    return Table("Limits", ("verdict", "limit", "where", "seen", "why"), lines, texts=5)


def _nan(value: float | None) -> float:
    return float("nan") if value is None else value


def reasons(data: ReportData) -> Table:
    """Why trials are not simply valid."""
    lines = []
    for cell, trial in data.trials():
        judged = data.validity_of(cell["id"], trial["id"])
        for reason in judged["reasons"] if judged else ():
            level = Cell(reason["level"].upper(), tone=TONES[reason["level"]])
            where = Cell(f"{place(keys_of(cell, trial))}, {trial['load']}{repetition(cell, data)}")
            lines.append((level, where, Cell(reason["sentence"]), Cell(reason["advice"])))
    return Table("Validity", ("level", "where", "what was seen", "what to do"), lines, texts=4)


def bursts(data: ReportData) -> Table:
    """How each burst was taken; of invalid trials none."""
    head = (
        "where",
        "burst at",
        "requests",
        "most waiting",
        "usual before",
        "drained after",
        "TTFT as before after",
        "errors",
    )
    lines: list[tuple[Cell, ...]] = []
    notes: list[str] = []
    for cell, trial in data.trials():
        found = data.facts_of(cell["id"], trial["id"]).get("bursts")
        if not found or (data.validity_of(cell["id"], trial["id"]) or {}).get("verdict") == "invalid":
            continue
        where = f"{place(keys_of(cell, trial))}, {trial['load']}{repetition(cell, data)}"
        for one in found["taken"][:MOST_BURSTS]:
            times = [UNKNOWN if one[name] is None else seconds(one[name]) for name in ("drained_s", "recovered_s")]
            counted = [str(one[name]) for name in ("requests", "backlog_peak", "backlog_before")]
            failed = Cell(str(one["errors"]), tone="bad" if one["errors"] else "")
            lines.append((Cell(where), Cell(seconds(one["start_s"])), *map(Cell, (*counted, *times)), failed))
        if len(found["taken"]) > MOST_BURSTS:
            notes.append(f"{where}: the first {MOST_BURSTS} of {len(found['taken'])}; summary.json has all")
        if found["drained_s"]:
            value, low, high = map(seconds, found["drained_s"])
            notes.append(f"{where}: drained after {value} ({low} to {high}), the geometric mean with its 95 % interval")
    return Table("Bursts", head, lines, notes, texts=2)


def repetition(cell: dict[str, Any], data: ReportData) -> str:
    """ ", repetition 2" where there are several."""
    several = len({other["repetition"] for other in data.manifest["cells"]}) > 1
    return f", repetition {cell['repetition']}" if several else ""


def not_run(data: ReportData) -> Table:
    """Cells and trials that were skipped, failed, broke off or never began."""
    lines = []
    for cell in data.manifest["cells"]:
        broken = [trial for trial in cell.get("trials", ()) if trial["status"] != "complete"]
        whole = len(broken) == len(cell.get("trials", ())) and {trial.get("reason") for trial in broken} <= {
            cell["reason"]
        }
        if cell["status"] != "complete" and whole:
            where = place([str(cell[key] or "") for key in KEYS[:-1]] + [""]) + repetition(cell, data)
            lines.append(_not_run_line(where, "all loads", cell))
            continue
        for trial in broken:
            lines.append(_not_run_line(place(keys_of(cell, trial)) + repetition(cell, data), trial["load"], trial))
    return Table("Not measured, or not to the end", ("cell", "load", "status", "why"), lines, texts=4)


def _not_run_line(where: str, load: str, entry: dict[str, Any]) -> tuple[Cell, ...]:
    status = Cell(entry["status"], tone=TONES.get(entry["status"], ""))
    return Cell(where), Cell(load), status, Cell(entry.get("reason") or "no reason was recorded")


def errors(data: ReportData) -> Table:
    """Kinds of failed requests, with an example and when they began."""
    lines = []
    for cell, trial in data.trials():
        for error in data.facts_of(cell["id"], trial["id"]).get("errors", ()):
            code = f" {error['http_status']}" if error["http_status"] is not None else ""
            what = Cell(f"{error['status']}{code}", tone="bad")
            where = Cell(f"{place(keys_of(cell, trial))}, {trial['load']}{repetition(cell, data)}")
            lines.append((what, where, Cell(when(error)), Cell(error["example"] or "no message")))
    return Table("Errors", ("kind", "where", "when", "example"), lines, texts=4)


def servers(data: ReportData) -> Table:
    """How requests spread over several servers."""
    lines = []
    for cell, trial in data.trials():
        invalid = (data.validity_of(cell["id"], trial["id"]) or {}).get("verdict") == "invalid"
        where = Cell(f"{place(keys_of(cell, trial))}, {trial['load']}{repetition(cell, data)}")
        for server in data.facts_of(cell["id"], trial["id"]).get("servers", ()):
            ttft = UNKNOWN if invalid else amount(_nan(server["ttft_p50_ms"]), show="time")
            failed = Cell(str(server["errors"]), tone="bad" if server["errors"] else "")
            lines.append((where, Cell(server["server"]), Cell(str(server["requests"])), failed, Cell(ttft)))
    return Table("Servers", ("where", "server", "requests", "errors", "TTFT p50, ms"), lines, texts=2)


def when(error: dict[str, Any]) -> str:
    """Since when and how often."""
    times = count(error["requests"], "request")
    if error["ended"]:
        return f"from {seconds(error['first_s'])} on ({times}, none succeeded after)"
    if error["first_s"] == error["last_s"]:
        return f"at {seconds(error['first_s'])} ({times})"
    return f"between {seconds(error['first_s'])} and {seconds(error['last_s'])} ({times})"


def circumstances(data: ReportData) -> list[tuple[str, str]]:
    """What must be known to repeat the run, as (name, value)."""
    manifest = data.manifest
    found = [
        ("command", str(manifest.get("command") or "")),
        ("created", str(manifest.get("created_utc") or "")),
        ("harness", str(manifest.get("harness_version") or "")),
        ("labels", _plain(manifest.get("labels"))),
        ("seed", _plain((manifest.get("scenario") or {}).get("seed"))),
    ]
    for part in ("must_match", "under_test", "context"):
        for name, value in _flat(part.replace("_", " "), (manifest.get("provenance") or {}).get(part) or {}):
            found.append((name, value))
    for cell in manifest["cells"]:
        for name, value in _flat(f"engine of {cell['id']}", cell.get("engine_info") or {}):
            found.append((name, value))
    for cell, trial in data.trials():
        found.append(
            (f"plan of {cell['id']}/{trial['id']}", f"{trial.get('plan_hash') or ''} (seed {trial.get('seed')})")
        )
        found.append((f"load of {cell['id']}/{trial['id']}", _sender(trial)))
        notes = (trial.get("client") or {}).get("notes", ())
        found += [(f"client of {cell['id']}/{trial['id']}", str(note)) for note in notes]
    found += [("note", str(note)) for note in manifest.get("notes") or ()]
    return [(name, value) for name, value in found if value and value not in ("{}", "None")]


def _sender(trial: Mapping[str, Any]) -> str:
    """Who sent the load of a trial; empty where nobody did, or it was not recorded."""
    client = trial.get("client") or {}
    if not client or not trial.get("driver"):
        return ""
    who = "sent by Locust" if trial["driver"] == "locust" else "sent by this client"
    processes = len(client.get("workers") or ())
    return f"{who}, {processes} load workers" if processes else f"{who}, one process"


def _flat(prefix: str, value: Any) -> Iterator[tuple[str, str]]:
    """Nested dictionaries as dotted names; what is unknown is left out."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _flat(f"{prefix}, {name}", inner)
    elif value not in (None, "", [], ()):
        yield prefix, _plain(value)


def _plain(value: Any) -> str:
    if isinstance(value, dict | list | tuple):
        return json.dumps(value, ensure_ascii=False, default=str) if value else ""
    return "" if value is None else str(value)


def statistics(data: ReportData, keys: tuple[str, ...]) -> list[Table]:
    """Every metric of a trial, one table per class."""
    shows = {metric["name"]: metric["show"] for metric in data.definitions}
    rows = pooled_rows(data)
    return [_all_metrics(rows, keys, name, shows) for name in (ALL, *_classes(rows, keys))]


def _all_metrics(
    rows: dict[tuple[str, ...], dict[str, Any]], keys: tuple[str, ...], name: str, shows: dict[str, str]
) -> Table:
    statistics = ("p50", "p90", "p95", "p99", "max", "mean")
    own = {key[6:]: row for key, row in rows.items() if key[:6] == (*keys, name)}
    lines: list[tuple[Cell, ...]] = []
    for metric in dict.fromkeys(key[0] for key in own):
        show = shows.get(metric, "number")
        if (metric, "value") in own:
            row = own[metric, "value"]
            cells = [Cell(estimate(row, show), interval(row, show)), *[Cell("")] * (len(statistics) - 1)]
        else:
            row = own[metric, "max"]
            found = [own.get((metric, statistic)) for statistic in statistics]
            cells = [Cell(estimate(one, show), interval(one, show)) for one in found]
        unit = {"share": "", "bytes": ""}.get(row["unit"], f", {row['unit']}")
        lines.append((Cell(f"{metric}{unit}"), *cells, Cell(str(row["n"])), Cell(row["source"])))
    title = "All requests" if name == ALL else f"Class {name}"
    return Table(title, ("metric", "p50 or value", *statistics[1:], "n", "source"), lines)
