"""Writer of report.html: one file that loads nothing and is whole without its script; templates escape all texts."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.store.manifest import CellEntry, TrialEntry
from reports import answer, plots, sections
from reports.data import ReportData, place
from reports.labels import DATA
from reports.plots.drawing import Plot
from reports.tables import base, decision, environment, results
from reports.tables.base import Table

TEMPLATES = Path(__file__).parent / "templates"
MAX_TRIALS_WITH_PLOTS = plots.MOST_TRIALS
_DRAW = "`harness report RUN --format plots` draws"
ROW_HEIGHT, TITLE_HEIGHT, FOLD_HEIGHT, LINE_HEIGHT = 20.0, 40.0, 23.0, 36.0  # in units of the pictures
_UNDRAWN = f"Only the first {MAX_TRIALS_WITH_PLOTS} trials have their pictures here; {_DRAW} those of every one."
_HOW_TO_READ = (
    "Small numbers are 95\u00a0% intervals. A “~” marks an interval that is open, or wider than half the value; "
    "“>\u00a0X” is a bound: some requests never ended."
)


@dataclass(frozen=True, slots=True)
class Part:
    """Part of the page before the trials; `choices` and `above` are pictures above the tables, `plots` below them."""

    anchor: str
    title: str
    tables: Sequence[Table]
    advice: Sequence[str] = ()
    remarks: Sequence[str] = ()
    choices: Sequence[Plot] = ()
    above: Sequence[Plot] = ()
    plots: Sequence[Plot] = ()


def render(data: ReportData) -> str:
    """Return the page."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    script = (TEMPLATES / "report.js").read_text(encoding="utf-8")
    parts, trials = list(_parts(data)), list(_trials(data))
    shown: set[str] = set()

    def first_use(metric: str) -> bool:
        """Return whether no table has shown a metric yet: its first place gets an anchor, to come back to."""
        new = metric not in shown
        shown.add(metric)
        return new

    loader = FileSystemLoader(TEMPLATES)
    jinja = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    jinja.globals |= {
        "defined": {metric["name"] for metric in data.definitions}.__contains__,
        "first_use": first_use,
        "used": shown.__contains__,
        "grid_rows": _grid_rows,
    }
    return jinja.get_template("report.html").render(
        data=data,
        tone=base.TONES.get(data.verdict(), "bad"),
        headline=answer.headline(data),
        answer=answer.labelled(data),
        contents=_contents(parts, trials),
        parts=parts,
        trials=trials,
        command=str(data.manifest.command or ""),
        environment=environment.groups(data),
        footer=f"harness {data.manifest.harness_version or ''}, {data.manifest.created_utc or ''}",
        script=script,
        script_hash=script_hash(script),
    )


def script_hash(script: str) -> str:
    """Return the hash by which the content security policy allows the only script."""
    return f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}"


def _parts(data: ReportData) -> Iterator[Part]:
    drawn = plots.of_decisions(data)
    for number, model in enumerate(decision.of_models(data), 1):
        choices = drawn.get(model.model, ())
        yield Part(f"decision-{number}", model.title, model.tables, model.advice, model.remarks, choices)
    for anchor, title, tables in sections.page(data):
        if anchor == "results":
            above, below = plots.of_loads(data), plots.of_distributions(data)
            yield Part(anchor, title, tables, remarks=(_HOW_TO_READ, data.calibration), above=above, plots=below)
        else:
            yield Part(anchor, title, tables)


def _grid_rows(plot: Plot) -> tuple[int, int]:
    """Return the rows of the grid without and with the table: unlike pictures then stack without holes."""
    closed = plot.height + TITLE_HEIGHT + (FOLD_HEIGHT if plot.table else 0.0)
    behind = LINE_HEIGHT * (2 + len(plot.table.rows)) if plot.table else 0.0
    return round(closed / ROW_HEIGHT), round((closed + behind) / ROW_HEIGHT)


def _contents(parts: Sequence[Part], trials: Sequence[dict[str, Any]]) -> list[tuple[str, str, list[tuple[str, str]]]]:
    """Return anchors and names of the parts, with those of the trials below theirs."""
    return [
        *((part.anchor, part.title.partition(",")[0], []) for part in parts),
        ("trials", "Trials", [(trial["anchor"], trial["title"]) for trial in trials]),
        ("environment", "Environment", []),
        ("definitions", "Definitions", []),
    ]


def _trials(data: ReportData) -> Iterator[dict[str, Any]]:
    """Yield the values of the template for each trial: all of its repetitions, with the plots of the first."""
    for number, (keys, trials) in enumerate(base.groups(data).items(), 1):
        shown = [(cell, trial) for cell, trial in trials if data.facts_of(cell.id, trial.id)]
        if not shown:
            continue
        first, repetition = (shown[0][0].id, shown[0][1].id), shown[0][0].repetition
        drawn = plots.of_trial(data, *first) if number <= MAX_TRIALS_WITH_PLOTS else []
        verdict = data.verdict_of(keys)
        yield {
            "anchor": f"trial-{number}",
            "title": f"{place(keys)}, {keys[-1]}",
            "data": DATA.get(verdict, ""),
            "tone": base.TONES.get(verdict, ""),
            "facts": _facts(data, shown),
            "caveats": _caveats(data, shown),
            "tables": results.statistics(data, keys),
            "machine": [table for cell, trial in shown for table in sections.of_trial(data, cell, trial)],
            "plots": drawn,
            "drawn": f"Drawn: repetition {repetition} of {len(shown)}; {_DRAW} the others." if len(shown) > 1 else "",
            "undrawn": _UNDRAWN if data.series.get(first) else "",
        }


def _facts(data: ReportData, trials: list[tuple[CellEntry, TrialEntry]]) -> list[tuple[str, str]]:
    """Return facts that all repetitions share once, other facts with the repetitions they are true of."""
    found: dict[str, dict[str, list[str]]] = {}
    for cell, trial in trials:
        facts = data.facts_of(cell.id, trial.id)
        window, counted_by = facts["window"], facts["tokens"]["counted_by"]
        ramp_in = f", after a ramp-in of {window['ramp_in_s']:.3g} s" if window.get("ramp_in_s") else ""
        counted = {name: number / sum(counted_by.values()) for name, number in counted_by.items() if number}
        for name, text in (
            ("loop", f"{str(trial.loop).replace('_', ' ')}, window {window['text']}{ramp_in}"),
            ("measured requests", ", ".join(f"{n} {status}" for status, n in facts["statuses"].items()) or "none"),
            ("tokens counted by", _shares(counted)),
            ("arrivals stamped by", _shares(facts["clocks"])),
        ):
            found.setdefault(name, {}).setdefault(text, []).append(str(cell.repetition))
    return [(name, _by_repetition(texts)) for name, texts in found.items()]


def _by_repetition(texts: dict[str, list[str]]) -> str:
    """Return a text that all repetitions share, or several with their repetitions."""
    if len(texts) == 1:
        ((text, numbers),) = texts.items()
        return f"{text}, each repetition" if len(numbers) > 1 else text
    return "; ".join(f"{text} (repetition {', '.join(numbers)})" for text, numbers in texts.items())


def _shares(shares: dict[str, float]) -> str:
    if len(shares) == 1:
        return next(iter(shares))
    return ", ".join(f"{name} {share:.1%}" for name, share in shares.items()) or "none"


def _caveats(data: ReportData, trials: list[tuple[CellEntry, TrialEntry]]) -> list[tuple[str, str, str]]:
    """Return (word, its tone, finding and action) of every reason, poor data first."""
    found = []
    for cell, trial in trials:
        for reason in (data.validity_of(cell.id, trial.id) or {"reasons": ()})["reasons"]:
            word = f"data: {DATA[reason['level']]}{base.repetition(cell, data)}"
            found.append((word, base.TONES[reason["level"]], f"{reason['sentence']} {reason['advice']}"))
    return sorted(found, key=lambda caveat: caveat[1] != base.TONES["invalid"])
