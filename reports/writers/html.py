"""report.html: one file that needs nothing else.

The page loads nothing, runs only the script that its policy names, and is whole without it. The templates escape
everything shown.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.store.manifest import CellEntry, TrialEntry
from reports import answer, plots, sections
from reports.data import ReportData, place
from reports.labels import DATA
from reports.tables import base, decision, environment, results
from reports.tables.base import Table

if TYPE_CHECKING:
    from markupsafe import Markup

    from reports.plots.drawing import Plot

TEMPLATES = Path(__file__).parent / "templates"
MAX_TRIALS_WITH_PLOTS = plots.MOST_TRIALS
_DRAW = "`harness report RUN --format plots` draws"
ROW_HEIGHT, TITLE_HEIGHT, FOLD_HEIGHT, LINE_HEIGHT = 20.0, 40.0, 23.0, 36.0  # in units of the pictures
_UNDRAWN = f"Only the first {MAX_TRIALS_WITH_PLOTS} trials have their pictures here; {_DRAW} those of every one."
_HOW_TO_READ = (
    "Small numbers are 95\u00a0% intervals. “>\u00a0X” and “<\u00a0X” are bounds: too few requests, or some never "
    "ended. Latencies count from the moment a request was due."
)


@dataclass(frozen=True, slots=True)
class Picture:
    """A plot as the page shows it.

    Attributes:
        picture: Safe to show as it is.
        rows, opened: Rows of the grid that it takes, without and with the table.
    """

    title: str
    picture: Markup
    table: Table | None
    rows: int
    opened: int


@dataclass(frozen=True, slots=True)
class Part:
    """A part of the page before the trials. choices: pictures above the tables."""

    anchor: str
    title: str
    tables: Sequence[Table]
    advice: Sequence[str] = ()
    remarks: Sequence[str] = ()
    choices: Sequence[Picture] = ()
    plots: Sequence[Picture] = ()


@dataclass(frozen=True, slots=True)
class Trial:
    """A trial as the page shows it: all of its repetitions, with the plots of the first."""

    anchor: str
    title: str
    data: str
    tone: str
    facts: Sequence[tuple[str, str]]
    caveats: Sequence[tuple[str, str, str]]
    no_result: str
    tables: Sequence[Table]
    machine: Sequence[Table]
    plots: Sequence[Picture]
    drawn: str
    undrawn: str


@dataclass(slots=True)
class FirstUses:
    """Metrics that tables have shown so far: the first place of each gets an anchor, to come back to."""

    seen: set[str] = field(default_factory=set)

    def first(self, metric: str) -> bool:
        """Return whether this is the first place."""
        new = metric not in self.seen
        self.seen.add(metric)
        return new


def render(data: ReportData) -> str:
    """Return the page."""
    from markupsafe import Markup

    script = (TEMPLATES / "report.js").read_text(encoding="utf-8")
    parts, trials, uses = [*_decisions(data), *_sections(data)], list(_trials(data)), FirstUses()
    defined = {metric["name"] for metric in data.definitions}
    page: str = _template(defined.__contains__, uses.first, uses.seen.__contains__).render(
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
        script=Markup(script),  # ours, not the run's
        script_hash=script_hash(script),
    )
    return page


def _template(defined: Callable[[str], bool], first_use: Callable[[str], bool], used: Callable[[str], bool]) -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {"defined": defined, "first_use": first_use, "used": used}
    return environment.get_template("report.html")


def script_hash(script: str) -> str:
    """Return the name that a content security policy has for the only script that may run."""
    return f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}"


def _decisions(data: ReportData) -> Iterator[Part]:
    drawn = plots.of_decisions(data)
    for number, model in enumerate(decision.of_models(data), 1):
        choices = _pictures(drawn.get(model.model, ()))
        yield Part(f"decision-{number}", model.title, model.tables, model.advice, model.remarks, choices)


def _sections(data: ReportData) -> Iterator[Part]:
    for anchor, title, tables in sections.page(data):
        if anchor == "results":
            remarks = (_HOW_TO_READ, data.calibration)
            yield Part(anchor, title, tables, remarks=remarks, plots=_pictures(plots.overview(data)))
        else:
            yield Part(anchor, title, tables)


def _pictures(drawn: Iterable[Plot]) -> list[Picture]:
    from markupsafe import Markup

    return [Picture(plot.title, Markup(plot.inline()), plot.table, *_rows_of(plot)) for plot in drawn]


def _rows_of(plot: Plot) -> tuple[int, int]:
    """Return the rows of the grid without and with the table: unlike pictures then stack without holes."""
    closed = plot.height + TITLE_HEIGHT + (FOLD_HEIGHT if plot.table else 0.0)
    behind = LINE_HEIGHT * (2 + len(plot.table.rows)) if plot.table else 0.0
    return round(closed / ROW_HEIGHT), round((closed + behind) / ROW_HEIGHT)


def _unnumbered(plot: Plot) -> Plot:
    """Return it without its numbers: an invalid trial has no result, but its course helps to find the cause."""
    title = plot.title or plot.name
    return replace(plot, alt=f"{title}, of a trial with poor data: no number is stated.", table=None)


def _contents(parts: Sequence[Part], trials: Sequence[Trial]) -> list[tuple[str, str, list[tuple[str, str]]]]:
    """Return anchors and names of the parts, with those of the trials below theirs."""
    return [
        *((part.anchor, part.title.partition(",")[0], []) for part in parts),
        ("trials", "Trials", [(trial.anchor, trial.title) for trial in trials]),
        ("environment", "Environment", []),
        ("definitions", "Definitions", []),
    ]


def _trials(data: ReportData) -> Iterator[Trial]:
    for number, (keys, trials) in enumerate(base.groups(data).items(), 1):
        shown = [(cell, trial) for cell, trial in trials if data.facts_of(cell.id, trial.id)]
        if not shown:
            continue
        first = (shown[0][0].id, shown[0][1].id)
        drawn = plots.of_trial(data, *first) if number <= MAX_TRIALS_WITH_PLOTS else []
        verdict = data.verdict_of(keys)
        yield Trial(
            anchor=f"trial-{number}",
            title=f"{place(keys)}, {keys[-1]}",
            data=DATA.get(verdict, ""),
            tone=base.TONES.get(verdict, ""),
            facts=_facts(data, shown),
            caveats=_caveats(data, shown),
            no_result=base.NO_RESULT if verdict == "invalid" else "",
            tables=results.statistics(data, keys),
            machine=[table for cell, trial in shown for table in sections.of_trial(data, cell, trial)],
            plots=_pictures(map(_unnumbered, drawn) if verdict == "invalid" else drawn),
            drawn=_repetition_drawn(shown),
            undrawn=_UNDRAWN if data.series.get(first) else "",
        )


def _repetition_drawn(trials: list[tuple[CellEntry, TrialEntry]]) -> str:
    number = trials[0][0].repetition
    return f"Drawn: repetition {number} of {len(trials)}; {_DRAW} the others." if len(trials) > 1 else ""


def _facts(data: ReportData, trials: list[tuple[CellEntry, TrialEntry]]) -> list[tuple[str, str]]:
    """Return what repetitions have in common once, the rest for each of them."""
    found: dict[str, dict[str, list[str]]] = {}
    for cell, trial in trials:
        facts = data.facts_of(cell.id, trial.id)
        statuses = ", ".join(f"{number} {status}" for status, number in facts["statuses"].items()) or "none"
        for name, text in (
            ("loop", f"{str(trial.loop).replace('_', ' ')}, window {_window(facts['window'])}"),
            ("measured requests", statuses),
            ("tokens counted by", _shares(_relative(facts["tokens"]["counted_by"]))),
            ("arrivals stamped by", _shares(facts["clocks"])),
        ):
            found.setdefault(name, {}).setdefault(text, []).append(str(cell.repetition))
    return [(name, _by_repetition(texts)) for name, texts in found.items()]


def _window(window: dict[str, Any]) -> str:
    """Return where measuring began and ended, and what was left out while the load came up."""
    ramp_in_s = window.get("ramp_in_s")
    return str(window["text"]) + (f", after a ramp-in of {ramp_in_s:.3g} s" if ramp_in_s else "")


def _by_repetition(texts: dict[str, list[str]]) -> str:
    """Return a text, or several with their repetitions. texts: with the repetitions of which each is true."""
    if len(texts) == 1:
        ((text, numbers),) = texts.items()
        return f"{text}, each repetition" if len(numbers) > 1 else text
    return "; ".join(f"{text} (repetition {', '.join(numbers)})" for text, numbers in texts.items())


def _caveats(data: ReportData, trials: list[tuple[CellEntry, TrialEntry]]) -> list[tuple[str, str, str]]:
    """Return (word, its tone, what was seen and what to do) of every reason, the more severe first."""
    found = []
    for cell, trial in trials:
        for reason in (data.validity_of(cell.id, trial.id) or {"reasons": ()})["reasons"]:
            word = f"data: {DATA[reason['level']]}{base.repetition(cell, data)}"
            found.append((word, base.TONES[reason["level"]], f"{reason['sentence']} {reason['advice']}"))
    return sorted(found, key=lambda caveat: caveat[1] != base.TONES["invalid"])


def _relative(numbers: dict[str, int]) -> dict[str, float]:
    return {name: number / sum(numbers.values()) for name, number in numbers.items() if number}


def _shares(shares: dict[str, float]) -> str:
    if len(shares) == 1:
        return next(iter(shares))
    return ", ".join(f"{name} {share:.1%}" for name, share in shares.items()) or "none"
