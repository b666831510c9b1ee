"""Sections of a report: one list of tables for the page, Markdown and the terminal."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Literal

from harness.store.manifest import CellEntry, TrialEntry
from reports.data import ReportData
from reports.tables import checks, decision, fits, limits, machine, quality, results, saturation
from reports.tables.base import Table, repetition


@dataclass(frozen=True, slots=True)
class Section:
    """Table about the whole run, and its place in each writer.

    Attributes:
        part: Anchor of its part of the page; "" if the page shows it elsewhere.
        table: Function that makes the table. A table without rows is left out.
        markdown: Rank among the tables that Markdown shows; None if it does not.
        failures: Rank among those that Markdown shows below the caveats; None if it does not.
        folded: Rank among the tables that Markdown folds; None if it does not.
        terminal: Rank in the terminal; None if the terminal leaves it out.
        title: Title of the part; "" for that of the table.
    """

    part: str
    table: Callable[[ReportData], Table]
    markdown: int | None = None
    failures: int | None = None
    folded: int | None = None
    terminal: int | None = None
    title: str = ""


SECTIONS = (  # in the order of the page; a terminal shows its answer instead of most of them
    Section("results", results.headline, markdown=1),
    Section("saturation", saturation.saturation, markdown=3, terminal=0),
    Section("results", results.requests, folded=1),
    Section("results", decision.single_engines, folded=2),
    Section("fits", fits.fits, folded=7),
    Section("", limits.limits, markdown=2),
    Section("", checks.reasons, folded=0),
    Section("not-measured", checks.not_run, failures=1),
    Section("errors", checks.errors, failures=2),
    Section("bursts", results.bursts, folded=6, terminal=4),
    Section("servers", results.servers, folded=5, terminal=3),
    Section("quality", quality.detail, folded=3, terminal=1, title="Quality"),
    Section("quality", quality.responses, folded=4, terminal=2),
)
OF_TRIAL = (machine.memory, machine.energy, machine.server, machine.throttling, machine.pages)


def page(data: ReportData) -> list[tuple[str, str, list[Table]]]:
    """Return anchor, title and tables of each part of the page."""
    parts: dict[str, tuple[str, list[Table]]] = {}
    for section in SECTIONS:
        if not section.part:
            continue
        table = section.table(data)
        _, tables = parts.setdefault(section.part, (section.title or table.title, []))
        tables += [table] if table.rows else []
    return [(anchor, title, tables) for anchor, (title, tables) in parts.items() if tables]


def ranked(data: ReportData, place: Literal["markdown", "failures", "folded", "terminal"]) -> list[Table]:
    """Return the tables of a writer, by their rank in it."""
    shown = [section for section in SECTIONS if getattr(section, place) is not None]
    tables = (section.table(data) for section in sorted(shown, key=attrgetter(place)))
    return [table for table in tables if table.rows]


def of_trial(data: ReportData, cell: CellEntry, trial: TrialEntry) -> list[Table]:
    """Return the tables of one trial."""
    facts = data.facts_of(cell.id, trial.id)
    tables = (*(make(facts) for make in OF_TRIAL), checks.checks(facts, data.late_readings_above))
    return [replace(table, title=f"{table.title}{repetition(cell, data)}") for table in tables if table.rows]
