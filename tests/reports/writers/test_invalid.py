"""The numbers of an invalid trial are shown in brackets, and in the files for programs they are marked."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from dataclasses import replace

import pytest
from rich.console import Console

from harness.verdict.decision.table import decide
from harness.verdict.reason import Level, Validity
from reports import plots
from reports.data import ReportData
from reports.plots.marks import MUTED
from reports.tables import results as result_tables
from reports.writers import html, markdown, summaries, terminal

pytestmark = pytest.mark.slow

REASON = {
    "code": "load_missing",
    "level": "invalid",
    "sentence": "Requests were never sent.",
    "advice": "Lower the rate.",
    "metrics": [],
}


@pytest.fixture(scope="module")
def spoiled(full: ReportData) -> ReportData:
    """The full run as if the first trial, which has a result for everything, were invalid."""
    judged = [
        one | {"verdict": "invalid", "reasons": [REASON]} if number == 0 else one
        for number, one in enumerate(full.validity)
    ]
    keys = ("tiny", "simulated", "f16", "", "sustained")
    verdicts = [
        one | {"outcome": "invalid"}
        if tuple(one[name] for name in ("model", "engine", "level", "variant", "load")) == keys
        else one
        for one in full.verdicts
    ]
    worth = {(one["cell"], one["trial"]): Validity(Level(one["verdict"])) for one in judged}
    facts = {(one["cell"], one["trial"]): one for one in full.facts}
    decisions = decide(full.manifest, full.summary, worth, [], facts)
    return replace(full, validity=judged, verdicts=verdicts, decisions=decisions)


def shown_on_a_terminal(data: ReportData) -> str:
    """The summary at the end of a run."""
    out = io.StringIO()
    terminal.show(data, Console(file=out, width=200))
    return out.getvalue()


@pytest.mark.parametrize("render", [markdown.render, html.render, shown_on_a_terminal])
def test_the_numbers_of_an_invalid_trial_stand_in_brackets(
    spoiled: ReportData, render: Callable[[ReportData], str]
) -> None:
    """With the reason, and with what to do; an engineer who could not see them would measure with another tool."""
    page = render(spoiled).replace("\\", "")
    assert "(80.0)" in page
    assert "Requests were never sent." in page
    assert "Lower the rate." in page


def test_the_reason_is_under_the_pointer(sweep: ReportData) -> None:
    """Of a number that is not reliable, and of one that may be off."""
    page = html.render(sweep)
    assert '<td class="n" title="Token counts disagree: server 640, chunks 512." data-value="12.0' in page
    assert page.count('title="The load generator was up to 56 ms late (machine busy: load 12 on 2 cores)."') == 5


def test_the_other_trials_have_no_brackets(full: ReportData, spoiled: ReportData) -> None:
    """Only the row of the invalid trial has."""
    before, after = result_tables.headline(full), result_tables.headline(spoiled)
    first = after.head.index("TTFT p50, ms (from due)")
    assert [cell.text[:1] for cell in after.rows[0][first : first + 3]] == ["("] * 3
    assert [[cell.text for cell in row] for row in after.rows[1:3]] == [
        [cell.text for cell in row] for row in before.rows[1:3]
    ]
    (curves,) = (plot for plot in plots.of_distributions(spoiled) if plot.name == "load-sustained-ttft")
    assert curves.table is not None
    assert curves.table.head == ("quantile", "(f16), ms", "q4, ms")
    assert f"stroke:{MUTED};stroke-width:1.8" in curves.svg


def test_programs_find_the_values_marked(spoiled: ReportData) -> None:
    """summary.csv and summary.json lose nothing, and say what each metric is worth."""
    rows = list(csv.DictReader(io.StringIO(summaries.as_csv(spoiled))))
    found = {(row["level"], row["load"], row["validity"]) for row in rows if row["metric"] == "ttft_ms"}
    assert found == {("f16", "sustained", "invalid"), ("f16", "single", "valid"), ("q4", "sustained", "warn")}
    assert {row["validity"] for row in rows if row["level"] == "f16" and row["load"] == "sustained"} == {"invalid"}
    assert {row["validity"] for row in rows if (row["level"], row["metric"]) == ("q4", "tpot_ms")} == {"valid"}
    assert all(row["value"] for row in rows if row["metric"] == "ttft_ms" and row["statistic"] == "p50")
    results = json.loads(summaries.as_json(spoiled))["results"]
    first = next(one for one in results if (one["level"], one["load"]) == ("f16", "sustained"))
    assert first["validity"] == "invalid"
    assert first["classes"]["all"]["ttft_ms"]["p50"]["value"] > 0
