"""Writer of report.html: one file that loads nothing and is whole without its script; templates escape all texts."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from harness.store.manifest import CellEntry, TrialEntry
from reports import answer, caveats, plots, sections, tiles
from reports.data import ReportData, place
from reports.format import dotted, for_xml
from reports.labels import DATA
from reports.names import ended
from reports.plots.drawing import Plot
from reports.tables import base, checks, decision, environment, limits, results
from reports.tables.base import Table

TEMPLATES = Path(__file__).parent / "templates"
MAX_TRIALS_WITH_PLOTS = plots.MOST_TRIALS
MOST_LIMITS, MOST_PLOTS, TALL = 4, 2, 1.5
_DRAW = "`harness report RUN --format plots` draws"
ROW_HEIGHT, TITLE_HEIGHT, FOLD_HEIGHT, LINE_HEIGHT = 20.0, 40.0, 23.0, 36.0  # in units of the pictures
_UNDRAWN = f"Only the first {MAX_TRIALS_WITH_PLOTS} trials have their pictures here; {_DRAW} those of every one."
_SAID = ("RECOMMENDED", "KNEE", "LENGTHS", "FIT", "COST", "LOAD", "ERRORS", "NOT RUN")


@dataclass(frozen=True, slots=True)
class Part:
    """Part of the page before the trials: tables, of which those after the first may be folded, and pictures below."""

    anchor: str
    title: str
    tables: Sequence[Table]
    folded: Sequence[Table] = ()
    advice: Sequence[str] = ()
    remarks: Sequence[str] = ()
    plots: Sequence[Plot] = ()


def render(data: ReportData) -> str:
    """Return the page."""
    first = _first_plots(data)
    parts, trials = list(_parts(data, first)), list(_trials(data, first))
    doubts, screen = checks.reasons(data), _first_screen(data, first)
    return page(
        "report.html",
        {metric["name"] for metric in data.definitions},
        data=data,
        page_title=f"{data.title} · {screen['title']}",
        first=screen,
        contents=_contents(parts, trials, caveats=bool(doubts.rows)),
        parts=parts,
        trials=trials,
        doubts=doubts,
        commands=environment.commands(data),
        environment=environment.groups(data),
        footer=dotted((f"harness {data.manifest.harness_version or ''}".strip(), str(data.manifest.created_utc or ""))),
    )


def page(template: str, defined: Collection[str] = (), **values: Any) -> str:
    """Return a page made from a template, with the script of all pages. What XML cannot hold, HTML does not need.

    Args:
        defined: Names of the metrics that the page defines.
    """
    shown: set[str] = set()

    def first_use(metric: str) -> bool:
        """Return whether no table has shown a metric yet: its first place gets an anchor, to come back to."""
        new = metric not in shown
        shown.add(metric)
        return new

    from reports.writers.jinja import templates

    script = (TEMPLATES / "report.js").read_text(encoding="utf-8")
    jinja = templates()
    uses = {"defined": defined.__contains__, "first_use": first_use, "used": shown.__contains__}
    jinja.globals |= {**uses, "grid_rows": _grid_rows}
    return for_xml(jinja.get_template(template).render(**values, script=script, script_hash=script_hash(script)))


def script_hash(script: str) -> str:
    """Return the hash by which the content security policy allows the only script."""
    return f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}"


def _first_screen(data: ReportData, drawn: Sequence[Plot]) -> Mapping[str, Any]:
    """Return the values of the template for the first screen."""
    word, why, tone = answer.verdict(data)
    quality = caveats.quality(data)
    code = "" if data.exit_code is None else f"exit {data.exit_code}"
    subject = [answer.subject(data), *answer.totals(data), *answer.when_and_where(data)]
    rows = limits.rows(data)
    said = [(line, ended(": ".join(line.parts))) for line in answer.lines(data) if line.label in _SAID]
    said.sort(key=lambda one: _SAID.index(one[0].label))
    return {
        "verdict": " ".join(part for part in (word, why) if part),
        "tone": tone,
        "how": answer.how_it_ended(data),
        "data": f"data: {quality}" if quality else "",
        "data_tone": base.TONES.get(caveats.level(data), ""),
        "code": code,
        "title": answer.headline(data).split(" · ")[0],
        "subject": [text for text in subject if text],
        "tiles": tiles.of_run(data),
        "limits": rows[:MOST_LIMITS],
        "more_limits": rows[MOST_LIMITS:],
        "signs": limits.SIGNS,
        "tones": base.TONES,
        "plots": drawn,
        "tall": len(drawn) > 1 and drawn[1].height > TALL * drawn[0].height,
        "said": [(line.label.capitalize(), text, line.tone) for line, text in said],
        "caveats": caveats.summary(data, "below"),
    }


def _first_plots(data: ReportData) -> list[Plot]:
    """Return the pictures of the first screen: of the choice, of sweeps, of the distributions, or of trials."""
    sweeps = plots.of_loads(data)
    wanted = ("-ttft", "-goodput-rps", "-output-tokens-per-s", "-e2e")
    ordered = [plot for ending in wanted for plot in sweeps if plot.name.endswith(ending)]
    choices = [plot for drawn in plots.of_decisions(data).values() for plot in drawn[:1]]
    found = [*choices[:1], *ordered, *choices[1:], *plots.of_distributions(data), *sweeps]
    found = list({_identity(plot): plot for plot in found}.values())
    return [*found, *(_of_trials(data) if len(found) < MOST_PLOTS else ())][:MOST_PLOTS]


def _of_trials(data: ReportData) -> Iterator[Plot]:
    """Yield the pictures of the only load, or the first picture of each."""
    tried = {keys: trials for keys, trials in base.groups(data).items() if plots.of_trial(data, *_ids(trials[0]))}
    for keys, trials in list(tried.items())[:MOST_PLOTS]:
        drawn = plots.of_trial(data, *_ids(trials[0]))
        where = dotted((keys[-1] if len(tried) > 1 else "", "repetition 1" if len(trials) > 1 else ""))
        for plot in drawn if len(tried) == 1 else drawn[:1]:
            yield replace(plot, title=f"{plot.title} ({where})" if where else plot.title)


def _ids(trial: tuple[CellEntry, TrialEntry]) -> tuple[str, str]:
    return trial[0].id, trial[1].id


def _identity(plot: Plot) -> tuple[str, str]:
    """Return what tells a picture from others, whatever its title; pictures of similar loads may share their name."""
    return plot.name, plot.svg


def _rest(drawn: Sequence[Plot], first: Sequence[Plot]) -> list[Plot]:
    placed = {_identity(plot) for plot in first}
    return [plot for plot in drawn if _identity(plot) not in placed]


def _parts(data: ReportData, first: Sequence[Plot]) -> Iterator[Part]:
    decided = plots.of_decisions(data)
    for anchor, title, tables in sections.page(data):
        if anchor == "results":
            drawn = _rest([*plots.of_loads(data), *plots.of_distributions(data)], first)
            yield Part(anchor, title, tables[:1], tables[1:], plots=drawn)
            yield from _decisions(data, decided, first)
        else:
            yield Part(anchor, title, tables)


def _decisions(data: ReportData, drawn: Mapping[str, Sequence[Plot]], first: Sequence[Plot]) -> Iterator[Part]:
    for number, model in enumerate(decision.of_models(data), 1):
        above, *below = model.tables
        rest = _rest(drawn.get(model.model, ()), first)
        advice = model.advice[1:]
        yield Part(f"decision-{number}", model.title, [above], below, advice, model.remarks, rest)


def _grid_rows(plot: Plot) -> tuple[int, int]:
    """Return the rows of the grid without and with the table: unlike pictures then stack without holes."""
    closed = plot.height + TITLE_HEIGHT + (FOLD_HEIGHT if plot.table else 0.0)
    behind = LINE_HEIGHT * (2 + len(plot.table.rows)) if plot.table else 0.0
    return round(closed / ROW_HEIGHT), round((closed + behind) / ROW_HEIGHT)


def _contents(
    parts: Sequence[Part], trials: Sequence[dict[str, Any]], *, caveats: bool
) -> list[tuple[str, str, list[tuple[str, str]]]]:
    """Return anchors and names of the parts, with those of the trials below theirs."""
    return [
        *((part.anchor, part.title.partition(",")[0], []) for part in parts),
        ("trials", "Trials", [(trial["anchor"], trial["title"]) for trial in trials]),
        *([("caveats", "Caveats", [])] if caveats else []),
        ("environment", "Environment", []),
        ("method", "Method", []),
    ]


def _trials(data: ReportData, placed: Sequence[Plot]) -> Iterator[dict[str, Any]]:
    """Yield the values of the template for each trial: all of its repetitions, with the plots of the first."""
    for number, (keys, trials) in enumerate(base.groups(data).items(), 1):
        shown = [(cell, trial) for cell, trial in trials if data.facts_of(cell.id, trial.id)]
        if not shown:
            continue
        first, repetition = (shown[0][0].id, shown[0][1].id), shown[0][0].repetition
        drawn = plots.of_trial(data, *first) if number <= MAX_TRIALS_WITH_PLOTS else []
        rest = _rest(drawn, placed)
        verdict = data.verdict_of(keys)
        yield {
            "anchor": f"trial-{number}",
            "title": f"{place(keys)}, {keys[-1]}",
            "data": DATA.get(verdict, ""),
            "tone": base.TONES.get(verdict, ""),
            "facts": _facts(data, shown),
            "tables": results.statistics(data, keys),
            "machine": [table for cell, trial in shown for table in sections.of_trial(data, cell, trial)],
            "plots": rest,
            "drawn": f"Drawn: repetition {repetition} of {len(shown)}; {_DRAW} the others." if len(shown) > 1 else "",
            "undrawn": _UNDRAWN if data.series.get(first) and not drawn else "",
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
