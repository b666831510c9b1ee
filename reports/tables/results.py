"""Tables of results: speed, limits, requests, bursts, servers, and all metrics of one trial."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from harness.store.manifest import CellEntry, TrialEntry
from reports.data import ALL, ReportData, keys_of_verdict, place
from reports.format import THIN, UNKNOWN, amount, seconds
from reports.labels import RESULTS, Column
from reports.tables.base import (
    NO_RESULT,
    Cell,
    Rows,
    Table,
    averaged,
    by_class,
    classes,
    counted,
    data_quality,
    groups,
    judgement,
    measured,
    nan,
    noted,
    number,
    sortable,
    trial_name,
)

HEAD = (
    "configuration",
    "load",
    "loop",
    "measured requests",
    "succeeded",
    "time",
    "mean latency, ms",
    "output tokens/s",
)
NEVER_SENT = "scheduled requests that were never sent are not counted; Caveats has their number"
MOST_BURSTS = 12
OPEN_ENDED = {  # the reason if they are unknown
    "drained_s": "not before the next burst or the end of the trial",
    "recovered_s": "not before the next burst or the end of the trial, or fewer than 20 requests came before the burst",
}
_AVERAGED = ("output_tokens_per_s", "completed_rps")


def headline(data: ReportData) -> Table:
    """Return one row per cell and load, and one per class of its traffic."""
    known = by_class(data)
    present = {metric for rows in known.values() for metric, _ in rows}
    columns = [column for column in RESULTS if not column.optional or column.name in present]
    lines, notes = [], list[str]()
    for keys, trials in groups(data).items():
        if all(trial.status in ("pending", "skipped") for _, trial in trials):
            continue
        every = (data.facts_of(cell.id, trial.id).get("missing") for cell, trial in trials)
        missing = next((reasons for reasons in every if reasons), None)
        verdict = data.verdict_of(keys)
        for name in (ALL, *classes(data, keys)):
            label = Cell(keys[-1] if name == ALL else f"{keys[-1]}, class {name}", note=_origin(data, trials, notes))
            judged = data_quality(verdict) if name == ALL else Cell("")
            if verdict == "invalid":
                values = [Cell(UNKNOWN, note=noted(notes, NO_RESULT)) for _ in columns]
            else:
                rows = known.get((*keys, name), {})
                values = [_value(rows, column, missing, notes, name == ALL) for column in columns]
            lines.append((Cell(place(keys)), label, judged, *values))
    head = ("configuration", "load", "data", *(column.head for column in columns))
    return Table("Results", head, lines, notes, texts=3, about=("", "", "", *(column.name for column in columns)))


def _origin(data: ReportData, trials: Sequence[tuple[CellEntry, TrialEntry]], notes: list[str]) -> int | None:
    """Return the mark of a load whose latencies do not all count from due."""
    found = {data.facts_of(cell.id, trial.id).get("origin", "from due") for cell, trial in trials}
    others = sorted(found - {"from due"})
    return noted(notes, f"TTFT and E2E count {others[0]}") if others else None


def _value(
    rows: Rows,
    column: Column,
    missing: dict[str, str] | None,
    notes: list[str],
    with_note: bool,
) -> Cell:
    row = rows.get((column.name, column.statistic))
    shown = averaged(row, notes, column.show) if column.name in _AVERAGED else measured(row, column.show)
    if row is not None and column.name.startswith("energy") and shown.text != UNKNOWN:
        return replace(shown, note=noted(notes, f"energy by {row['source'] or 'an unnamed sensor'}"))
    if shown.text != UNKNOWN or not with_note:
        return shown if row is not None or with_note else Cell("")
    if missing is None:
        return Cell(UNKNOWN)
    reason = f"{column.name}: {missing.get(column.name, 'no request has a value')}"
    return Cell(UNKNOWN, note=noted(notes, reason))


def limits(data: ReportData) -> Table:
    """Return one row per limit and trial."""
    shows = {metric["name"]: (metric["show"], metric["unit"]) for metric in data.definitions}
    lines = []
    for verdict in data.verdicts:
        show, unit = shows.get(verdict["metric"], ("number", ""))
        value, low, high = (nan(verdict[name]) for name in ("value", "low", "high"))
        invalid = verdict["outcome"] == "invalid"
        text = amount(value, low, high, show) if not invalid else UNKNOWN
        if text != UNKNOWN and show in ("time", "number"):
            text += f"{THIN}{unit}"
        keys = keys_of_verdict(verdict)
        limit, where = Cell(verdict["limit"], about=verdict["metric"]), Cell(f"{place(keys)}, {keys[-1]}")
        shown = Cell(text, value=None if invalid else sortable(verdict["value"]))
        lines.append((judgement(verdict["outcome"]), limit, where, shown, Cell(verdict["sentence"])))
    return Table("Limits", ("verdict", "limit", "where", "measured", "reason"), lines, texts=5)


def statistics(data: ReportData, keys: tuple[str, ...]) -> list[Table]:
    """Return every metric of a trial, one table per class."""
    shows = {metric["name"]: metric["show"] for metric in data.definitions}
    known = by_class(data)
    return [_all_metrics(known.get((*keys, name), {}), name, shows) for name in (ALL, *classes(data, keys))]


def _all_metrics(rows: Rows, name: str, shows: dict[str, str]) -> Table:
    statistics = ("p50", "p90", "p95", "p99", "max", "mean")
    lines = []
    for metric in dict.fromkeys(metric for metric, _ in rows):
        show = shows.get(metric, "number")
        if (metric, "value") in rows:
            row = rows[metric, "value"]
            cells = [measured(row, show), *[Cell("")] * (len(statistics) - 1)]
        else:
            row = rows[metric, "max"]
            cells = [measured(rows.get((metric, statistic)), show) for statistic in statistics]
        unit = "" if row["unit"] in ("share", "bytes") else f", {row['unit']}"
        lines.append((Cell(f"{metric}{unit}", about=metric), *cells, counted(row["n"]), Cell(row["source"])))
    title = "All requests" if name == ALL else f"Class {name}"
    return Table(title, ("metric", "p50 or value", *statistics[1:], "n", "source"), lines)


def bursts(data: ReportData) -> Table:
    """Return the course of each burst of trials that are not invalid."""
    backlog = ("backlog, peak", "backlog before", "drained after")
    head = ("where", "burst at", "requests", *backlog, "TTFT recovered after", "errors")
    lines, notes = list[tuple[Cell, ...]](), list[str]()
    for cell, trial in data.trials():
        found = data.facts_of(cell.id, trial.id).get("bursts")
        if not found or data.invalid(cell.id, trial.id):
            continue
        where = trial_name(cell, trial, data)
        for one in found["taken"][:MOST_BURSTS]:
            sizes = [counted(one[name]) for name in ("requests", "backlog_peak", "backlog_before")]
            times = []
            for name, why in OPEN_ENDED.items():
                note = noted(notes, why) if one[name] is None else None
                times.append(Cell(seconds(one[name]), value=one[name], note=note))
            failed = counted(one["errors"], "bad" if one["errors"] else "")
            lines.append((Cell(where), Cell(seconds(one["start_s"]), value=one["start_s"]), *sizes, *times, failed))
        if len(found["taken"]) > MOST_BURSTS:
            notes.append(f"{where}: the first {MOST_BURSTS} of {len(found['taken'])}; summary.json has all")
        if found["drained_s"]:
            value, low, high = map(seconds, found["drained_s"])
            notes.append(f"{where}: drained after {value} ({low} to {high}), the geometric mean with its 95 % interval")
    return Table("Bursts", head, lines, notes, texts=2)


def servers(data: ReportData) -> Table:
    """Return the requests of each of several servers."""
    lines = []
    for cell, trial in data.trials():
        invalid = data.invalid(cell.id, trial.id)
        where = Cell(trial_name(cell, trial, data))
        for server in data.facts_of(cell.id, trial.id).get("servers", ()):
            failed = counted(server["errors"], "bad" if server["errors"] else "")
            p50 = number(None if invalid else server["ttft_p50_ms"])
            lines.append((where, Cell(server["server"]), counted(server["requests"]), failed, p50))
    return Table("Servers", ("where", "server", "requests", "errors", "TTFT p50, ms"), lines, texts=2)


def requests(data: ReportData) -> Table:
    """Return one row per cell and load with records, repetitions added up."""
    lines, notes = [], list[str]()
    for keys, trials in groups(data).items():
        facts = [one for cell, trial in trials if (one := data.facts_of(cell.id, trial.id))]
        if not facts:
            continue
        statuses = [one["statuses"] for one in facts]
        unsent = sum(one.get("not_sent", 0) for one in statuses)
        total, good = sum(sum(one.values()) for one in statuses) - unsent, sum(one.get("ok", 0) for one in statuses)
        took = sum(one["served_s"] for one in facts)
        sent = replace(counted(total), note=noted(notes, NEVER_SENT) if unsent else None)
        sizes = (sent, counted(good, "" if good == total else "bad"), Cell(seconds(took), value=took))
        invalid = data.verdict_of(keys) == "invalid"
        values = []
        for metric, statistic in (("e2e_ms", "mean"), ("output_tokens_per_s", "value")):
            row = by_class(data).get((*keys, ALL), {}).get((metric, statistic))
            values.append(Cell(UNKNOWN, note=noted(notes, NO_RESULT)) if invalid else averaged(row, notes))
        loops = {str(trial.loop or "").replace("_", " ") for _, trial in trials}
        lines.append((Cell(place(keys)), Cell(keys[-1]), Cell(" or ".join(sorted(loops - {""}))), *sizes, *values))
    return Table("Requests", HEAD, lines, notes, texts=3, about=("",) * 6 + ("e2e_ms", "output_tokens_per_s"))
