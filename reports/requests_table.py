"""Requests of each trial: in which kind of loop, how many, how many succeeded, the time they took, mean latency."""

from __future__ import annotations

from dataclasses import replace

from reports.data import ALL, ReportData, place
from reports.format import UNKNOWN, seconds
from reports.tables import NO_RESULT, Cell, Table, averaged, counted, groups, noted, pooled_rows

HEAD = ("cell", "load", "loop", "measured requests", "succeeded", "time", "mean latency, ms", "output tokens/s")
NEVER_SENT = "requests of the plan that were never sent are not among them; Validity says how many"


def requests(data: ReportData) -> Table:
    """One row per cell and load, repetitions added up; trials that left no records have none."""
    rows = pooled_rows(data)
    lines, notes = [], list[str]()
    for keys, trials in groups(data).items():
        facts = [one for cell, trial in trials if (one := data.facts_of(cell["id"], trial["id"]))]
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
            row = rows.get((*keys, ALL, metric, statistic))
            values.append(Cell(UNKNOWN, note=noted(notes, NO_RESULT)) if invalid else averaged(row, notes))
        loops = {str(trial.get("loop") or "").replace("_", " ") for _, trial in trials}
        lines.append((Cell(place(keys)), Cell(keys[-1]), Cell(" or ".join(sorted(loops - {""}))), *sizes, *values))
    return Table("Requests", HEAD, lines, notes, texts=3, about=("",) * 6 + ("e2e_ms", "output_tokens_per_s"))
