"""The decision table as it is shown: in every format, wide and narrow, with names that are hostile."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from rich.console import Console

import reports
from harness.cli.commands.report import report_data
from harness.store.manifest import StartEntry
from reports import plots
from reports.data import ReportData
from reports.plots import decision as pictures
from reports.tables import decision
from reports.writers import html, markdown, summaries, terminal
from tests.choices import MIB, Choice, results_of

LIMITS = ("ttft_ms p50 <= 130", "kl_mean <= 0.05")
LEVELS = (
    Choice("f16", 1.3, memory=200 * MIB, kl=(0.0, 0.0, 0.0), top1=1.0),
    Choice("q8_0", 1.05, memory=120 * MIB, kl=(0.0006, 0.0005, 0.0007), top1=0.993),
    Choice("q4_k_m", 0.9, memory=90 * MIB, kl=(0.03, 0.028, 0.034), top1=0.93),
    Choice("q4_0", 0.78, memory=85 * MIB, kl=(0.08, 0.07, 0.09), top1=0.88),
    Choice("worse", 1.4, memory=210 * MIB, kl=(0.09, 0.08, 0.1), top1=0.87),
    Choice("q2_k", status="skipped", reason="simulated has no level q2_k"),
)


@pytest.fixture(scope="module")
def chosen() -> ReportData:
    """Five levels with quality, one of them skipped, one beaten; limits that q4_k_m holds fastest."""
    return report_data(results_of(LEVELS, limits=LIMITS))


def rounded(text: str) -> str:
    """Numbers to four digits: the last ones depend on the machine's arithmetic."""
    return re.sub(r"\d+\.\d{3,}", lambda found: f"{float(found[0]):.4g}", text)


def shown(data: ReportData, width: int) -> str:
    """What a terminal shows, from the decision on."""
    out = io.StringIO()
    terminal.show(data, Console(file=out, width=width))
    text = out.getvalue()
    return text[text.index("decision") :]


@pytest.mark.parametrize("width", [60, 80, 100])
def test_a_terminal_shows_the_columns_that_fit(chosen: ReportData, width: int) -> None:
    """The recommendation and the numbers that decide stay; a column of dashes is in no table."""
    text = shown(chosen, width)
    row = next(line for line in text.splitlines() if line.startswith(" q4_k_m"))
    assert "recommended" in row
    assert "93.3" in row
    assert ("near-lossless" in text) == (width >= 100)
    assert "RECOMMENDED q4_k_m (sure), 1.44 x f16" in text
    assert "GPU" not in text


def test_markdown_is_as_agreed(chosen: ReportData, golden: Callable[[str, str], None]) -> None:
    """It begins with what to run; what is behind its table is folded."""
    text = markdown.render(chosen)
    assert text.index("## Which quantization") < text.index("Recommended: q4") < text.index("## Results")
    golden("decision.md", text[text.index("## Which quantization") : text.index("## Results")])


def test_csv_is_as_agreed(chosen: ReportData, golden: Callable[[str, str], None]) -> None:
    """A row for each level, a column for each value."""
    text = summaries.decision_as_csv(chosen)
    lines = list(csv.DictReader(io.StringIO(text)))
    assert [line["level"] for line in lines] == ["f16", "q8_0", "q4_k_m", "q4_0", "worse", "q2_k"]
    assert [line["level"] for line in lines if line["chosen"] == "True"] == ["q4_k_m"]
    assert float(lines[1]["kl_mean high"]) == 0.0007
    assert lines[5]["speed"] == ""
    golden("decision.csv", rounded(text))


def test_the_page_says_it_first_and_draws_the_front(chosen: ReportData) -> None:
    """With a picture of speed against memory, and the tables behind it."""
    page = html.render(chosen)
    first = page[page.index("<main") : page.index("<h2>Results</h2>")]
    assert "<b>Recommended</b> q4_k_m" in first
    assert '<span>recommended</span> <b class="good">q4_k_m</b>' in first
    figure = first[first.index("<figure") : first.index("</figure>")]
    assert '<svg role="img" aria-label="Speed against memory of 5 configurations.' in figure


def test_files_for_programs(chosen: ReportData, tmp_path: Path) -> None:
    """decision.csv beside summary.csv, the whole table in summary.json, the picture among the plots."""
    names = {file.name for file in reports.write(chosen, tmp_path, ["csv", "json", "plots"])}
    assert {"decision.csv", "summary.csv", "summary.json", "choice-tiny-memory.svg"} <= names
    (table,) = json.loads((tmp_path / "summary.json").read_text())["decisions"]
    assert table["recommendation"]["chosen"] == ["q4_k_m"]


def test_the_picture_names_every_row(chosen: ReportData) -> None:
    """Dominated ones are hollow."""
    (plot,) = pictures.of_models(chosen)["tiny"]
    texts = {element.text for element in ET.fromstring(plot.svg[plot.svg.index("<svg") :]).iter() if element.text}
    assert {"f16", "q8_0", "q4_k_m", "q4_0", "worse", "near-lossless", "hollow: dominated"} <= texts
    assert plot.alt.endswith("Pareto-optimal in speed, memory, quality: f16, q8_0, q4_k_m, q4_0.")


def test_grades_that_are_not_decided_have_a_marker_of_their_own() -> None:
    """The table behind the picture has the words; the divergence is shown as a bound, with the reason."""
    open_ended = replace(LEVELS[2], kl=(math.nan, 0.002, math.inf))
    data = report_data(results_of((LEVELS[0], LEVELS[1], open_ended)))
    (plot,) = pictures.of_models(data)["tiny"]
    texts = {element.text for element in ET.fromstring(plot.svg[plot.svg.index("<svg") :]).iter() if element.text}
    assert "several grades possible" in texts
    assert [row[3].text for row in plot.table.rows] == ["reference", "near-lossless", "degraded at best"]
    (model,) = decision.of_models(data)
    table = model.tables[0]
    shown = table.rows[2][table.head.index("KL, nats")]
    assert shown.text.startswith(">")
    assert "only a lower bound can be told" in table.notes[shown.note - 1]  # type: ignore[operator]


def test_of_many_rows_the_picture_names_those_that_matter(chosen: ReportData, monkeypatch: pytest.MonkeyPatch) -> None:
    """Dominated ones stand in the table behind it only."""
    monkeypatch.setattr(pictures, "MOST_LABELS", 4)
    (plot,) = pictures.of_models(chosen)["tiny"]
    texts = {element.text for element in ET.fromstring(plot.svg[plot.svg.index("<svg") :]).iter() if element.text}
    assert "worse" not in texts
    assert {"f16", "q8_0", "q4_k_m", "q4_0"} <= texts
    assert any(row[0].text == "worse" for row in plot.table.rows)


def test_quality_has_its_columns_only_where_it_was_measured() -> None:
    """Else a remark says that it was not."""
    data = report_data(results_of((Choice("f16"), Choice("q4", 0.8))))
    (model,) = decision.of_models(data)
    assert not [name for name in model.tables[0].head if "KL" in name or name == "quality"]
    assert any("Quality was not measured" in remark for remark in model.remarks)
    assert "limits" not in model.tables[0].head


def test_a_single_row_is_no_choice() -> None:
    """It gets a block about its engine instead."""
    data = report_data(results_of((Choice("f16"),)))
    assert decision.of_models(data) == []
    (row,) = decision.single_engines(data).rows
    assert (row[0].text, row[1].text) == ("tiny · f16", "f16")
    assert "Which" not in markdown.render(data)


def test_without_load_there_is_no_choice() -> None:
    """A run that only scored quality has its own table."""
    data = report_data(results_of((Choice("f16", kl=(0.0, 0.0, 0.0)), Choice("q4", kl=(0.1, 0.09, 0.11))), loads=()))
    assert decision.of_models(data) == []


def test_no_rows_no_block() -> None:
    """A server elsewhere says nothing of itself: no table of dashes."""
    bare = Choice("f16", info={"weight_bytes": None, "parameters": None}, requests=30)
    results = results_of((bare,))
    for cell in results.manifest.cells:
        cell.start = StartEntry()
    from harness.verdict.decision.table import decide

    decisions = decide(results.manifest, results.summary, results.validity, [], results.facts)
    for value in decisions[0]["rows"][0]["values"].values():
        value["value"] = None
    data = report_data(results)
    object.__setattr__(data, "decisions", decisions)
    assert decision.single_engines(data).rows == []


def test_hostile_names_stay_texts() -> None:
    """In the page, in tables and in the picture."""
    evil = '<script>document.title="owned"</script>|$x^'
    data = report_data(results_of((Choice(evil, requests=40), Choice("\\frac", 0.8, requests=40)), model=evil))
    page = html.render(data)
    assert page.count("<script") == page.count("<script>") == 1  # ours
    assert "&lt;script&gt;" in page
    text = markdown.render(data)
    assert not re.search(r"(?<!\\)<script", text)
    for plot in pictures.of_models(data)[evil]:
        ET.fromstring(plot.standalone()[plot.standalone().index("<svg") :])
        assert re.fullmatch(r"[A-Za-z0-9.-]+", plot.name)


def test_pictures_of_models_of_like_names_are_files_of_their_own(chosen: ReportData, tmp_path: Path) -> None:
    """Signs that a file's name cannot hold, and a name that is too long for one, overwrite nothing."""
    (table,) = chosen.decisions
    models = ("a b", "a/b", "x" * 400, "x" * 401)
    data = replace(chosen, decisions=[table | {"model": name} for name in models], series={})
    names = [file.name for file in plots.save(data, tmp_path) if file.name.startswith("choice")]
    assert len(names) == len(set(names)) == len(models)
    assert names[:2] == ["choice-a-b-memory.svg", "choice-a-b-memory-2.svg"]


def test_an_invalid_number_is_shown_in_brackets() -> None:
    """With the reason, in the decision and under its load, and marked for programs; memory is not touched."""
    levels = (LEVELS[0], replace(LEVELS[1], invalid=("single_user",)))
    data = report_data(results_of(levels, limits=LIMITS))
    (model,) = decision.of_models(data)
    table, under = model.tables[0], model.tables[-1]
    row = dict(zip(table.head, table.rows[1], strict=True))
    assert row["decision"].text == "undecided"
    assert re.fullmatch(r"\(79\.\d\)", row["speed, tokens/s"].text)
    assert table.notes[(row["speed, tokens/s"].note or 0) - 1] == "Requests were sent late."
    assert row["memory, peak"].text == "120\u202fMiB"
    load = dict(zip(under.head, under.rows[1], strict=True))
    assert (load["TTFT p95, ms"].text[0], load["succeeded"].text) == ("(", "100.0\u202f%")
    assert model.advice[1].startswith("Undecided: q8_0: the load single_user was not the planned one: Requests were")
    (plot,) = pictures.of_models(data)["tiny"]
    assert "hollow: dominated or not known" in plot.svg
    assert [row[-1].text for row in plot.table.rows] == ["", "unknown"]
    line = list(csv.DictReader(io.StringIO(summaries.decision_as_csv(data))))[1]
    assert (line["speed invalid"], line["single_user ttft_p95_ms invalid"]) == ("yes", "yes")
    assert float(line["speed"]) > 0
    assert "memory_peak_bytes invalid" not in line


def test_few_requests_have_their_numbers() -> None:
    """Marked as known roughly, never as a bound; and no method of a ratio that does not exist."""
    data = report_data(
        results_of([Choice("f16", requests=2), Choice("q8_0", requests=2)], limits=("ttft_ms p95 <= 1",))
    )
    text = markdown.render(data)
    assert "\\~ |" in text
    assert "\\> " not in text.split("## Caveats")[0]
    assert "Ratio of speeds: usage" not in text
