"""Cells and tables, and lookups in a run that several tables share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import groupby
from typing import Any

from harness.store.manifest import CellEntry, TrialEntry
from reports.data import ALL, KEYS, POOLED, ReportData, keys_of, place
from reports.format import UNKNOWN, amount, estimate, interval
from reports.labels import DATA


@dataclass(frozen=True, slots=True)
class Cell:
    """Text in a table.

    Attributes:
        detail: Smaller text below.
        tone: "good", "bad", "doubtful" or "".
        note: Number of a footnote.
        value: Number behind the text, to sort by.
        about: Metric that the text names.
        why: Reason why it is marked.
        folded: Lines that the text sums up, for formats that can fold.
    """

    text: str
    detail: str = ""
    tone: str = ""
    note: int | None = None
    value: float | None = None
    about: str = ""
    why: str = ""
    folded: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Table:
    """Table with footnotes.

    Attributes:
        texts: Number of leading columns that are texts; the others are numbers.
        remarks: Number of columns at the end that are texts; terminals only.
        about: Metric of each column, "" for none; may be shorter than the head.
        foot: Explanations of signs, without numbers.
        heads: Upper and lower line of each head, for formats that have two; `head` has both in one.
    """

    title: str
    head: tuple[str, ...]
    rows: Sequence[tuple[Cell, ...]]
    notes: list[str] = field(default_factory=list)
    texts: int = 1
    about: tuple[str, ...] = ()
    heads: tuple[tuple[str, str], ...] = ()
    foot: tuple[str, ...] = ()
    remarks: int = 0

    @property
    def over(self) -> list[tuple[str, int]]:
        """Return the upper line of the heads, with the number of neighbours that share each; empty ones share none."""
        grouped = groupby(enumerate(over for over, _ in self.heads), lambda one: one[1] or one[0])
        found = [list(same) for _, same in grouped]
        return [(same[0][1], len(same)) for same in found]

    @property
    def joins(self) -> bool:
        """Whether several texts stand before the numbers; without room they go below the first of them."""
        return 1 < self.texts < len(self.head)


TONES = {
    **dict.fromkeys(("valid", "pass", "complete"), "good"),
    **dict.fromkeys(("warn", "cannot_tell"), "doubtful"),
    **dict.fromkeys(("invalid", "fail", "failed", "interrupted"), "bad"),
}
NO_INTERVAL = "no confidence interval: fewer than four independent parts were measured"


def first_rows(table: Table, rest: str = "are in summary.csv", most: int = 40) -> Table:
    """Return the table behind a plot, cut to its first rows; a note has the number of the others and `rest`."""
    left_out = len(table.rows) - most
    if left_out <= 0:
        return table
    return replace(table, rows=table.rows[:most], notes=[*table.notes, f"{left_out} more {rest}"])


def measured(row: dict[str, Any] | None, show: str = "number", note: int | None = None) -> Cell:
    """Return a row of the summary with its interval; a bound sorts by its number."""
    if row is None:
        return Cell(estimate(None), note=note)
    known = row["value"] if math.isfinite(row["value"]) else row["high" if row["bound"] == "upper" else "low"]
    return Cell(estimate(row, show), interval(row, show), note=note, value=sortable(known))


def averaged(row: dict[str, Any] | None, notes: list[str], show: str = "number") -> Cell:
    """Return a rate or a mean of requests; a footnote explains a missing interval."""
    bare = row is not None and row["bound"] == "point" and math.isnan(row["low"])
    return measured(row, show, noted(notes, NO_INTERVAL) if bare else None)


def number(value: float | None, show: str = "number", unknown: str = UNKNOWN) -> Cell:
    """Return a number without an interval; `unknown` stands for None, NaN and infinity."""
    known = sortable(value)
    return Cell(unknown) if known is None else Cell(amount(known, show=show), value=known)


def counted(number: int, tone: str = "") -> Cell:
    """Return a count."""
    return Cell(str(number), tone=tone, value=float(number))


def judgement(word: str) -> Cell:
    """Return a verdict or a status in capitals."""
    return Cell(word.replace("_", " ").upper(), tone=TONES.get(word, ""))


def data_quality(validity: str) -> Cell:
    """Return the word for a trial's data, by its validity; a dash if nothing was judged."""
    return Cell(DATA.get(validity, UNKNOWN), tone=TONES.get(validity, ""))


def sortable(value: float | None) -> float | None:
    """Return the value, None if it is unknown or infinite."""
    return None if value is None or not math.isfinite(value) else float(value)


def noted(notes: list[str], text: str) -> int:
    """Return the number of a footnote; add it if it is missing."""
    if text not in notes:
        notes.append(text)
    return notes.index(text) + 1


def nan(value: float | None) -> float:
    """Return NaN for None."""
    return float("nan") if value is None else value


Rows = dict[tuple[str, str], dict[str, Any]]


@lru_cache(maxsize=1)  # every table of a report needs them
def by_class(data: ReportData) -> dict[tuple[str, ...], Rows]:
    """Return the pooled rows by (model, engine, level, variant, load, class), then by (metric, statistic)."""
    pooled = data.summary[data.summary["repetition"] == POOLED]
    keys = zip(*(pooled[name].astype(str) for name in (*KEYS, "class")), strict=True)
    found: dict[tuple[str, ...], Rows] = {}
    for key, row in zip(keys, pooled.to_dict("records"), strict=True):
        found.setdefault(key, {})[str(row["metric"]), str(row["statistic"])] = row  # type: ignore[assignment]
    return found


def classes(data: ReportData, keys: tuple[str, ...]) -> list[str]:
    """Return the sorted classes of traffic of a trial; empty without classes."""
    return sorted({key[5] for key in by_class(data) if key[:5] == keys and key[5] != ALL})


def groups(data: ReportData) -> dict[tuple[str, ...], list[tuple[CellEntry, TrialEntry]]]:
    """Return the repetitions of each trial together, in order."""
    found: dict[tuple[str, ...], list[tuple[CellEntry, TrialEntry]]] = {}
    for cell, trial in data.trials():
        found.setdefault(keys_of(cell, trial.load), []).append((cell, trial))
    return found


def repetition(cell: CellEntry, data: ReportData) -> str:
    """Return ", repetition 2" if there are several."""
    several = len({other.repetition for other in data.manifest.cells}) > 1
    return f", repetition {cell.repetition}" if several else ""


def cell_name(cell: CellEntry, data: ReportData) -> str:
    """Return a cell in words, with its repetition if there are several."""
    return f"{place(keys_of(cell))}{repetition(cell, data)}"


def trial_name(cell: CellEntry, trial: TrialEntry, data: ReportData) -> str:
    """Return a trial in words: its cell, its load, and its repetition if there are several."""
    return f"{place(keys_of(cell))}, {trial.load}{repetition(cell, data)}"
