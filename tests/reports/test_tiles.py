"""The tiles of a page: which numbers it begins with, in the words of the tables."""

from __future__ import annotations

from dataclasses import replace

from harness.cli.commands.report import report_data
from harness.results import derive
from reports import tiles
from reports.data import ReportData
from tests.choices import results_of
from tests.fabricated import FabricatedTrial, again, cell_entry, noisy, trial_entry
from tests.reports.conftest import manifest
from tests.reports.sweep_of_rates import sweep_of
from tests.reports.tables.test_decision import LEVELS, LIMITS


def told(data: ReportData) -> list[str]:
    """The tiles, each in one line."""
    shown = ((one.label, one.text, one.unit, one.mark, one.about) for one in tiles.of_run(data))
    return [" ".join(part for part in parts if part).replace("\u00a0", " ").replace("\u202f", " ") for parts in shown]


def test_a_sweep_holds_up_to_a_load(sweep: ReportData) -> None:
    """Its numbers are those of the highest load that meets every limit; the SLO is that of the next."""
    assert told(sweep) == [
        "holds up to 4 req/s every limit met",
        "TTFT p95 123* ms at 4/s",
        "TPOT p50 11.9 ms at 4/s",
        "E2E p95 601* ms at 4/s",
        "output 160 tok/s at 4/s",
        "SLO met 80.0 % at 8/s",
    ]


def test_no_load_may_hold(sweep: ReportData) -> None:
    """Then the numbers are those of the lowest, with the mark of the limit that one of them breaks."""
    broken = [one | {"outcome": "fail"} if one["metric"] == "ttft_ms" else one for one in sweep.verdicts]
    first, second, *_ = tiles.of_run(replace(sweep, verdicts=broken))
    assert (first.text, first.tone) == ("at no load", "bad")
    assert (second.label, second.mark, second.tone, second.about) == ("TTFT p95", "✗", "bad", "at 1/s")
    unknown = [one | {"outcome": "cannot_tell"} if one["load"].endswith("1") else one for one in sweep.verdicts]
    first = tiles.of_run(replace(sweep, verdicts=unknown))[0]
    assert (first.text, first.tone) == ("cannot be told", "doubtful")
    of_class = [one | {"limit": f"chat.{one['limit']}"} for one in broken]
    assert not any(one.mark for one in tiles.of_run(replace(sweep, verdicts=of_class)))
    held = [one | {"outcome": "pass"} for one in sweep.verdicts]
    assert told(replace(sweep, verdicts=held))[0] == "holds up to 8 req/s the most tried"


def test_a_limit_without_blanks_marks_its_number_too(sweep: ReportData) -> None:
    """People write `ttft_ms p95<=500`; a limit on another quantile marks nothing."""
    broken = [one | {"outcome": "fail"} if one["metric"] == "ttft_ms" else one for one in sweep.verdicts]
    tight = [one | {"limit": str(one["limit"]).replace(" <= ", "<=")} for one in broken]
    assert tiles.of_run(replace(sweep, verdicts=tight))[1].mark == "✗"
    other = [one | {"limit": str(one["limit"]).replace("p95 <= ", "p99<=")} for one in broken]
    assert not any(one.mark for one in tiles.of_run(replace(sweep, verdicts=other)))


def test_without_limits_the_knee_comes_first(sweep: ReportData) -> None:
    """And the numbers are those of the load below it; a sweep without a knee has the numbers of its last load."""
    assert told(replace(sweep, verdicts=[]))[:2] == ["knee 4 to 8 req/s", "TTFT p95 123* ms at 4/s"]
    flat = sweep_of("f16", rates=(1.0, 2.0))
    assert [one.about for one in tiles.of_run(flat)] == ["at 2/s"] * 5


def test_a_single_load_has_its_numbers(single: ReportData) -> None:
    """Without a place, since there is no other."""
    labels = [(one.label, one.about) for one in tiles.of_run(single)]
    assert labels == [("TTFT p50", ""), ("TTFT p95", ""), ("TPOT p50", ""), ("E2E p95", ""), ("output", "")]


def test_a_choice_begins_with_the_recommended(full: ReportData) -> None:
    """And its speed, memory and quality; without one it says so."""
    assert told(report_data(results_of(LEVELS, limits=LIMITS))) == [
        "recommended q4_k_m",
        "speed 93.3 tok/s",
        "vs. reference 144.3 %",
        "memory 90.0 MiB peak",
        "quality degraded",
    ]
    assert told(full) == ["recommended none"]


def test_each_configuration_of_a_sweep_holds_up_to_its_load() -> None:
    """Beside the recommendation."""
    found = told(sweep_of.__wrapped__("f16", "q4", limits=["ttft_ms p95 <= 200"]))
    assert found[-2:] == ["holds up to 4 req/s f16", "holds up to 8 req/s q4"]


def test_loads_that_are_no_sweep_have_one_number_each() -> None:
    """The most important, with the load's name."""
    cell = cell_entry()
    trials = [
        FabricatedTrial(cell, trial_entry(id=name, load=name, kind="burst"), noisy(number))
        for number, name in enumerate(("morning", "evening"))
    ]
    data = report_data(derive(manifest([again(cell, trials=[one.trial for one in trials])]), trials))
    assert [(one.label, one.about) for one in tiles.of_run(data)] == [("TTFT p95", "morning"), ("TTFT p95", "evening")]


def test_a_run_without_numbers_has_no_tiles(full: ReportData) -> None:
    """Neither has one that only scored quality."""
    empty = replace(full, manifest=again(full.manifest, cells=[]), facts=[], validity=[], verdicts=[], decisions=[])
    assert tiles.of_run(replace(empty, summary=full.summary.iloc[:0])) == []
