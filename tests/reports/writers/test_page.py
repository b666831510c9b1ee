"""report.html as a file: its size, how fast it is made, and whether its colours can be read."""

from __future__ import annotations

import math
import re
import sys
import time
from dataclasses import replace
from itertools import product

import pytest

from harness.cli.commands.report import report_data
from harness.results import derive
from reports import plots
from reports.data import ReportData
from reports.plots.drawing import Plot
from reports.plots.marks import MUTED
from reports.tables import base
from reports.tables.base import measured
from reports.writers import html
from tests.fabricated import FabricatedTrial, again, cell_entry, noisy, trial_entry
from tests.reports.conftest import manifest, memory

LARGEST_BYTES = 150_000  # of a trial: 3 MB for twenty, docs/adr/0011-cost-of-plots.md
LEAST_CONTRAST = 4.5
INKS = ("ink", "soft", "link", "good", "bad", "doubtful")
GROUNDS = ("paper", "band")
DARK = "prefers-color-scheme: dark"


def colours(dark: bool) -> dict[str, str]:
    """The variables of the style, as a reader of light or dark pages has them."""
    style = (html.TEMPLATES / "report.css").read_text(encoding="utf-8")
    light, night = re.findall(r":root \{(.*?)\}", style, flags=re.DOTALL)[:2]
    assert style.index(DARK) < style.index(night)
    found = dict(re.findall(r"--([a-z]+): (#[0-9a-f]{6})", light))
    return found | (dict(re.findall(r"--([a-z]+): (#[0-9a-f]{6})", night)) if dark else {})


def luminance(colour: str) -> float:
    """Relative luminance as WCAG 2 defines it."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(first: str, second: str) -> float:
    """From 1, the same, to 21, black on white."""
    low, high = sorted((luminance(first), luminance(second)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize(("ink", "ground"), list(product(INKS, GROUNDS)))
def test_every_text_can_be_read(dark: bool, ink: str, ground: str) -> None:
    """Each colour of a text has enough contrast on each ground it stands on."""
    known = colours(dark)
    assert contrast(known[ink], known[ground]) >= LEAST_CONTRAST


def test_contrast_is_that_of_the_standard() -> None:
    """Black on white is 21, a grey known to just pass passes, and one known to just fail fails."""
    assert contrast("#000000", "#ffffff") == pytest.approx(21.0)
    assert contrast("#767676", "#ffffff") >= LEAST_CONTRAST > contrast("#777777", "#ffffff")


@pytest.mark.slow
def test_ten_trials_make_a_small_page() -> None:
    """Under a megabyte and a half, pictures and the numbers behind them included; prints how long it took."""
    loads = [f"rate-{number}" for number in range(5)]
    levels = {"f16": 1.0, "q4": 0.7}
    trials = [
        FabricatedTrial(
            cell_entry(id=f"00{index}-tiny-{level}", index=index, level=level),
            trial_entry(id=f"{number:03}-{load}", index=number, load=load, limits=["ttft_ms p95 <= 150"]),
            noisy(number, slower=slower),
            memory(2e9 * slower),
        )
        for index, (level, slower) in enumerate(levels.items())
        for number, load in enumerate(loads)
    ]
    cells = [
        again(trials[start].cell, trials=[one.trial for one in trials[start : start + len(loads)]])
        for start in range(0, len(trials), len(loads))
    ]
    data = report_data(derive(manifest(cells), trials))
    began = time.perf_counter()
    page = html.render(data)
    took_s, size = time.perf_counter() - began, len(page.encode())
    sys.stdout.write(f"{len(trials)} trials: {size / 1e6:.2f} MB in {took_s:.1f} s, {page.count('<svg ')} pictures\n")
    assert page.count("<article ") == len(trials)
    assert size < LARGEST_BYTES * len(trials)


def test_a_cell_keeps_the_number_behind_its_text() -> None:
    """Without a value a bound sorts as its number; what is unknown has none."""
    row = {"value": 2.0, "low": 1.0, "high": 3.0, "bound": "point"}
    assert measured(row).value == 2.0
    assert measured(row | {"bound": "lower"}).value == 2.0
    unknown = row | {"value": math.nan}
    assert measured(unknown | {"bound": "lower"}).value == 1.0
    assert measured(unknown | {"bound": "upper"}).value == 3.0
    assert measured(unknown | {"bound": "lower", "low": math.nan}).value is None  # sorts last, as a dash
    assert measured(None).value is None


@pytest.mark.slow
def test_each_metric_shown_is_defined(full: ReportData) -> None:
    """Every link to a definition leads to one, and back to one place."""
    page = html.render(full)
    linked = set(re.findall(r'href="#metric-([a-z0-9_]+)"', page))
    defined = re.findall(r'id="metric-([a-z0-9_]+)"', page)
    used = re.findall(r'id="use-([a-z0-9_]+)"', page)
    assert linked <= set(defined)
    assert sorted(used) == sorted(linked)
    assert len(defined) == len(set(defined)) == len(full.definitions)


@pytest.mark.slow
def test_poor_data_keeps_its_pictures_and_their_numbers(full: ReportData) -> None:
    """They help to find the cause; its points over the loads are grey, and say why under the pointer."""
    reason = {"level": "invalid", "code": "books", "sentence": "The books differ.", "advice": "", "metrics": []}
    judged = [one | {"verdict": "invalid", "reasons": [reason]} for one in full.validity]
    page = html.render(replace(full, validity=judged))
    trials = page[page.index('<section id="trials">') : page.index('<details class="part" id="caveats">')]
    assert trials.count("<svg ") == trials.count("Numbers behind it") > 0
    results = page[page.index('<section id="results">') : page.index('<section id="trials">')]
    assert "Data: poor. The books differ.</title>" in results
    assert MUTED in results


@pytest.mark.slow
def test_a_run_of_many_trials_says_where_its_pictures_are(full: ReportData, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond a number of trials pictures would make the page too large."""
    monkeypatch.setattr(html, "MAX_TRIALS_WITH_PLOTS", 1)
    page = html.render(full)
    assert page.count("Only the first") == len(base.groups(full)) - 2  # one never ran, one has its pictures


def test_repetitions_are_told_together_and_the_one_drawn_is_named() -> None:
    """What is the same of all stands once; the pictures are of one of them, and say so."""
    trials = [
        FabricatedTrial(cell_entry(id=f"{number}", repetition=number), trial_entry(), noisy(number))
        for number in (1, 2)
    ]
    run = manifest([again(one.cell, trials=[one.trial]) for one in trials])
    page = html.render(report_data(derive(run, trials)))
    assert page.count("<dt>loop</dt>") == 1
    assert ", each repetition</dd>" in page
    assert "Drawn: repetition 1 of 2; <code>harness report RUN --format plots</code> draws the others." in page


def test_pictures_that_share_a_name_are_all_shown(single: ReportData, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names of files have no letters beyond ASCII, so two loads may share one."""
    first, second = (Plot("load---ttft", "", f"<svg>{number}</svg>") for number in (1, 2))
    monkeypatch.setattr(plots, "of_loads", lambda _: [])
    monkeypatch.setattr(plots, "of_decisions", lambda _: {})
    monkeypatch.setattr(plots, "of_distributions", lambda _: [first, second])
    assert html._first_plots(single) == [first, second]
    assert html._rest([first, second], [replace(first, title="In the first screen")]) == [second]
