"""How the load was taken: bursts and what came after them, and several servers beside each other."""

from __future__ import annotations

from reports.data import ReportData
from reports.format import UNKNOWN, amount, seconds
from reports.tables import Cell, Table, counted, nan, noted, sortable, where_of

MOST_BURSTS = 12
OPEN_ENDED = {  # why they may be unknown
    "drained_s": "not before the next burst or the end of the trial",
    "recovered_s": "not before the next burst or the end of the trial, or fewer than 20 requests came before the burst",
}


def bursts(data: ReportData) -> Table:
    """How each burst was taken; of invalid trials none."""
    head = (
        "where",
        "burst at",
        "requests",
        "most waiting",
        "usual before",
        "drained after",
        "TTFT as before, after",
        "errors",
    )
    lines: list[tuple[Cell, ...]] = []
    notes: list[str] = []
    for cell, trial in data.trials():
        found = data.facts_of(cell["id"], trial["id"]).get("bursts")
        if not found or (data.validity_of(cell["id"], trial["id"]) or {}).get("verdict") == "invalid":
            continue
        where = where_of(cell, trial, data)
        for one in found["taken"][:MOST_BURSTS]:
            sizes = [counted(one[name]) for name in ("requests", "backlog_peak", "backlog_before")]
            times = [_moment(one[name], notes, why) for name, why in OPEN_ENDED.items()]
            failed = counted(one["errors"], "bad" if one["errors"] else "")
            lines.append((Cell(where), Cell(seconds(one["start_s"]), value=one["start_s"]), *sizes, *times, failed))
        if len(found["taken"]) > MOST_BURSTS:
            notes.append(f"{where}: the first {MOST_BURSTS} of {len(found['taken'])}; summary.json has all")
        if found["drained_s"]:
            value, low, high = map(seconds, found["drained_s"])
            notes.append(f"{where}: drained after {value} ({low} to {high}), the geometric mean with its 95 % interval")
    return Table("Bursts", head, lines, notes, texts=2)


def _moment(value_s: float | None, notes: list[str], why: str) -> Cell:
    if value_s is None:
        return Cell(UNKNOWN, note=noted(notes, why))
    return Cell(seconds(value_s), value=value_s)


def servers(data: ReportData) -> Table:
    """How requests spread over several servers."""
    lines = []
    for cell, trial in data.trials():
        invalid = (data.validity_of(cell["id"], trial["id"]) or {}).get("verdict") == "invalid"
        where = Cell(where_of(cell, trial, data))
        for server in data.facts_of(cell["id"], trial["id"]).get("servers", ()):
            ttft = UNKNOWN if invalid else amount(nan(server["ttft_p50_ms"]), show="time")
            failed = counted(server["errors"], "bad" if server["errors"] else "")
            p50 = Cell(ttft, value=None if invalid else sortable(server["ttft_p50_ms"]))
            lines.append((where, Cell(server["server"]), counted(server["requests"]), failed, p50))
    return Table("Servers", ("where", "server", "requests", "errors", "TTFT p50, ms"), lines, texts=2)
