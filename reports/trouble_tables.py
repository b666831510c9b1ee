"""What went wrong: why trials are not simply valid, what was not measured, and errors by kind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from reports.data import KEYS, ReportData, keys_of, place
from reports.format import count, seconds
from reports.tables import TONES, Cell, Table, repetition, where_of


def reasons(data: ReportData) -> Table:
    """Why trials are not simply valid: a row for each kind of reason, those that spoil trials first. Where trials gave
    it other numbers, those of the first of them are shown.
    """
    kinds: dict[tuple[str, str], list[tuple[str, dict[str, Any]]]] = {}
    for cell, trial in data.trials():
        judged = data.validity_of(cell["id"], trial["id"])
        for reason in judged["reasons"] if judged else ():
            kinds.setdefault((reason["level"], reason["code"]), []).append((where_of(cell, trial, data), reason))
    ordered = sorted(kinds.items(), key=lambda kind: kind[0][0] != "invalid")
    lines = [_reasons_line(level, found, len(data.validity)) for (level, _), found in ordered]
    return Table("Validity", ("level", "where", "what was seen", "what to do"), lines, texts=4)


def _reasons_line(level: str, found: Sequence[tuple[str, dict[str, Any]]], trials: int) -> tuple[Cell, ...]:
    """found: where, and the reason.   trials: how many were judged."""
    where, first = found[0]
    tone = Cell(level.upper(), tone=TONES[level])
    places = list(dict.fromkeys(where for where, _ in found))
    if len(places) == 1:
        return tone, Cell(where), Cell(_joined(found, "sentence")), Cell(_joined(found, "advice"))
    many = f"in all {trials} trials" if len(places) == trials else f"in {len(places)} of {trials} trials"
    seen, advice = first["sentence"], first["advice"]
    other_sentences, other_advice = (len({reason[name] for _, reason in found}) > 1 for name in ("sentence", "advice"))
    if other_sentences:
        seen = f"In one of them, {where}: {seen}"
    if other_advice:
        advice = f"{'In that one' if other_sentences else f'For {where}'}: {advice[:1].lower()}{advice[1:]}"
    folded = tuple(f"{where}: {reason['sentence']} {reason['advice']}".rstrip() for where, reason in found)
    return tone, Cell(many, folded=folded), Cell(seen), Cell(advice)


def _joined(found: Sequence[tuple[str, dict[str, Any]]], name: str) -> str:
    """What a trial says more than once of the same kind."""
    return " ".join(dict.fromkeys(reason[name] for _, reason in found))


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
            where = Cell(where_of(cell, trial, data))
            lines.append((what, where, Cell(when(error)), Cell(error["example"] or "no message")))
    return Table("Errors", ("kind", "where", "when", "example"), lines, texts=4)


def when(error: dict[str, Any]) -> str:
    """Since when and how often."""
    times = count(error["requests"], "request")
    measured = error.get("measured", error["requests"])
    if measured < error["requests"]:
        times += f", {measured} of them measured" if measured else ", none of them measured"
    if error["ended"]:
        return f"from {seconds(error['first_s'])} on ({times}, none succeeded after)"
    if error["first_s"] == error["last_s"]:
        return f"at {seconds(error['first_s'])} ({times})"
    return f"between {seconds(error['first_s'])} and {seconds(error['last_s'])} ({times})"
