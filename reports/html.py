"""report.html: one file that needs nothing else: no network, no script. Everything shown is escaped by the template."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from reports import (
    circumstances,
    decision_table,
    load_tables,
    markdown,
    plots,
    quality_table,
    result_tables,
    tables,
    trouble_tables,
)
from reports.calibration import calibration_sentence
from reports.data import ReportData, place
from reports.requests_table import requests

TEMPLATES = Path(__file__).parent / "templates"
MAX_TRIALS_WITH_PLOTS = 24


def render(data: ReportData) -> str:
    """The page."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html").render(
        data=data,
        verdict=data.verdict(),
        tone=tables.TONES.get(data.verdict(), "bad"),
        calibration=calibration_sentence(data.manifest),
        headline=markdown.headline(data).strip().replace("**", ""),
        decisions=[
            (section, [Markup(plot.inline()) for plot in plots.draw(data).choices.get(section.model, ())])
            for section in decision_table.sections(data)
        ],
        first=[
            result_tables.limits(data),
            result_tables.headline(data),
            requests(data),
            decision_table.single_engines(data),
            *quality_table.tables(data),
            trouble_tables.not_run(data),
            load_tables.servers(data),
            load_tables.bursts(data),
            trouble_tables.errors(data),
            trouble_tables.reasons(data),
        ],
        overview=[Markup(plot.inline()) for plot in plots.draw(data).overview],
        trials=_trials(data),
        circumstances=circumstances.of_run(data),
        definitions=data.definitions,
    )


def _trials(data: ReportData) -> list[dict[str, Any]]:
    """Statistics, facts and plots of each group of repetitions; plots of the first repetition."""
    from markupsafe import Markup

    found: list[dict[str, Any]] = []
    for number, (keys, trials) in enumerate(tables.groups(data).items(), 1):
        shown = [(cell, trial) for cell, trial in trials if data.facts_of(cell["id"], trial["id"])]
        if not shown:
            continue
        first = (shown[0][0]["id"], shown[0][1]["id"])
        drawn = plots.draw(data).of_trial[first] if number <= MAX_TRIALS_WITH_PLOTS else []
        found.append(
            {
                "anchor": f"trial-{number}",
                "title": f"{place(keys)}, {keys[-1]}",
                "facts": _facts(data, shown),
                "no_result": tables.NO_RESULT if data.verdict_of(keys) == "invalid" else "",
                "tables": result_tables.statistics(data, keys),
                "plots": [Markup(plot.inline()) for plot in drawn],
            }
        )
    return found


def _facts(data: ReportData, trials: list[tuple[dict[str, Any], dict[str, Any]]]) -> list[tuple[str, str]]:
    lines = []
    for cell, trial in trials:
        facts = data.facts_of(cell["id"], trial["id"])
        suffix = tables.repetition(cell, data)
        statuses = ", ".join(f"{number} {status}" for status, number in facts["statuses"].items()) or "none"
        lines += [
            (f"loop{suffix}", f"{str(trial['loop']).replace('_', ' ')}, window {facts['window']['text']}"),
            (f"measured requests{suffix}", statuses),
            (f"tokens counted by{suffix}", _parts(facts["token_sources"])),
            (f"arrivals stamped by{suffix}", _parts(facts["clocks"])),
        ]
    return lines


def _parts(shares: dict[str, float]) -> str:
    if len(shares) == 1:
        return next(iter(shares))
    return ", ".join(f"{name} {share:.1%}" for name, share in shares.items()) or "nobody"
