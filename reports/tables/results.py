"""Tables of results: speed, requests, bursts, servers, and all metrics of one trial."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from reports.data import ALL, ReportData, place
from reports.format import UNKNOWN, seconds
from reports.labels import PAGE_RANK, Figure
from reports.tables.base import (
    TONES,
    Cell,
    Rows,
    Table,
    averaged,
    by_class,
    classes,
    counted,
    data_quality,
    groups,
    measured,
    noted,
    number,
    trial_name,
)
from reports.tables.overview import DOUBTED, foot_of, overview

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


def headline(data: ReportData) -> Table:
    """Return one row per configuration and load, and one per class of its traffic."""
    found = overview(data)
    shown = [number for number, one in enumerate(found.figures) if found.chosen or one.rank <= PAGE_RANK]
    lines = []
    for line in found.lines:
        judged = data_quality(data.verdict_of(line.keys))
        lines.append((*map(Cell, line.place), judged, line.mark, *(line.cells[number] for number in shown)))
    heads = [_flat(found.figures[number], found.units[number]) for number in shown]
    two = [found.figures[number].heads(found.units[number]) for number in shown]
    about = (*[""] * (len(found.heads) + 2), *(found.figures[number].metric for number in shown))
    cells = (line.cells[number] for line in found.lines for number in shown)
    foot = tuple(f"{sign} {text}" for sign, text in foot_of(found, cells))
    texts = (*found.heads, "data", "limits")
    both = (*(("", text) for text in texts), *two)
    return Table("Results", (*texts, *heads), lines, [], len(texts), about, both, foot)


def _flat(figure: Figure, unit: str) -> str:
    """Return the head of a number in one line: "TTFT p95, ms"."""
    words = " ".join(part for part in (figure.over, figure.head) if part)
    return f"{words}, {unit}" if unit else words


def statistics(data: ReportData, keys: tuple[str, ...]) -> list[Table]:
    """Return every metric of a trial, one table per class."""
    shows = {metric["name"]: metric["show"] for metric in data.definitions}
    known = by_class(data)
    level_of = partial(data.level_of, keys)
    return [_all_metrics(known.get((*keys, name), {}), name, shows, level_of) for name in (ALL, *classes(data, keys))]


def _all_metrics(rows: Rows, name: str, shows: dict[str, str], level_of: Callable[[str], str]) -> Table:
    statistics = ("p50", "p90", "p95", "p99", "max", "mean")
    lines = []
    for metric in dict.fromkeys(metric for metric, _ in rows):
        show = shows.get(metric, "number")
        own = {statistic: row for (name, statistic), row in rows.items() if name == metric}
        level = "valid" if _of_no_load(next(iter(own.values()))) else level_of(metric)
        if "max" in own:
            cells = [_marked(measured(own.get(one), show), level) for one in statistics]
            lines.append(_statistics_of(metric, own["max"], cells))
            continue
        for statistic, row in own.items():  # a single value, or counts per time
            cells = [_marked(measured(row, show), level), *[Cell("")] * (len(statistics) - 1)]
            lines.append(_statistics_of(metric, row, cells, "" if statistic == "value" else f" {statistic}"))
    title = "All requests" if name == ALL else f"Class {name}"
    return Table(title, ("metric", "p50 or value", *statistics[1:], "n", "source"), lines)


def _of_no_load(row: dict[str, Any]) -> bool:
    """Return whether a number is a size, or of the start: no poor load makes it wrong."""
    return bool(row["unit"] == "bytes" or row["source"] == "start")


def _marked(cell: Cell, level: str) -> Cell:
    """Return a number with the sign of the worst caveat about it, as in the table of results."""
    if level == "valid" or cell.text in ("", UNKNOWN):
        return cell
    text = f"({cell.text})" if level == "invalid" else f"{cell.text}{DOUBTED}"
    return replace(cell, text=text, tone=TONES[level])


def _statistics_of(metric: str, row: dict[str, Any], cells: Sequence[Cell], more: str = "") -> tuple[Cell, ...]:
    unit = "" if row["unit"] in ("share", "bytes") else f", {row['unit']}"
    return (Cell(f"{metric}{more}{unit}", about=metric), *cells, counted(row["n"]), Cell(row["source"]))


def bursts(data: ReportData) -> Table:
    """Return the course of each burst."""
    backlog = ("backlog, peak", "backlog before", "drained after")
    head = ("where", "burst at", "requests", *backlog, "TTFT recovered after", "errors")
    lines, notes = list[tuple[Cell, ...]](), list[str]()
    for cell, trial in data.trials():
        found = data.facts_of(cell.id, trial.id).get("bursts")
        if not found:
            continue
        where = trial_name(cell, trial, data)
        for one in found["taken"][:MOST_BURSTS]:
            sizes = [counted(one[name]) for name in ("requests", "backlog_peak", "backlog_before")]
            times = []
            for name, why in OPEN_ENDED.items():
                note = noted(notes, why) if one[name] is None else None
                times.append(Cell(_after(one[name]), value=one[name], note=note))
            failed = counted(one["errors"], "bad" if one["errors"] else "")
            lines.append((Cell(where), Cell(seconds(one["start_s"]), value=one["start_s"]), *sizes, *times, failed))
        if len(found["taken"]) > MOST_BURSTS:
            notes.append(f"{where}: the first {MOST_BURSTS} of {len(found['taken'])}; summary.json has all")
        if found["drained_s"]:
            value, low, high = map(_after, found["drained_s"])
            notes.append(f"{where}: drained {value} ({low} to {high}), the geometric mean with its 95 % interval")
    return Table("Bursts", head, lines, notes, texts=2)


def _after(value: float | None) -> str:
    """Return the time after which something had happened."""
    return "at once" if value == 0 else seconds(value)


def servers(data: ReportData) -> Table:
    """Return the requests of each of several servers."""
    lines = []
    for cell, trial in data.trials():
        where = Cell(trial_name(cell, trial, data))
        for server in data.facts_of(cell.id, trial.id).get("servers", ()):
            failed = counted(server["errors"], "bad" if server["errors"] else "")
            p50 = number(server["ttft_p50_ms"])
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
        values = []
        for metric, statistic in (("e2e_ms", "mean"), ("output_tokens_per_s", "value")):
            row = by_class(data).get((*keys, ALL), {}).get((metric, statistic))
            values.append(_marked(averaged(row, notes), data.level_of(keys, metric)))
        loops = {str(trial.loop or "").replace("_", " ") for _, trial in trials}
        lines.append((Cell(place(keys)), Cell(keys[-1]), Cell(" or ".join(sorted(loops - {""}))), *sizes, *values))
    return Table("Requests", HEAD, lines, notes, texts=3, about=("",) * 6 + ("e2e_ms", "output_tokens_per_s"))
