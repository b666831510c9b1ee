"""The answer in one paragraph: every part tells what the tables tell, and nothing that an invalid trial would."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from harness.cli.report import report_data
from harness.results import derive
from reports import answer
from reports.data import ReportData
from tests.fabricated import FabricatedTrial, again, cell_entry, noisy, trial_entry
from tests.reports.conftest import LIMITS, manifest


def parts(data: ReportData) -> dict[str, str]:
    """By the word in front."""
    return dict(answer.labelled(data))


def one_trial(*, limits: list[str], **changes: Any) -> ReportData:
    """A run of a single valid trial."""
    trial = FabricatedTrial(cell_entry(**changes), trial_entry(limits=limits), noisy(1))
    run = manifest([again(trial.cell, trials=[trial.trial], engine_info={"version": "1.2"})])
    return report_data(derive(run, [trial]))


@pytest.fixture(scope="module")
def alone() -> ReportData:
    """One trial, one limit, which holds."""
    return one_trial(limits=["ttft_ms p95 <= 500"])


def test_it_says_what_was_measured_on_what(full: ReportData) -> None:
    """Model, levels, engine with version, loads, machine, and how the requests ended."""
    assert parts(full)["Measured"] == (
        "tiny at f16 and q4 on simulated (1.2), under sustained and single, on Example 9000 with 8 cores: 3 trials, "
        "1230 measured requests, of which 120 failed (9.8%; most often connection error)."
    )


def test_what_was_never_sent_was_not_measured(alone: ReportData) -> None:
    """It is no measured request, and neither failed nor went well."""
    (facts,) = alone.facts
    stopped = replace(alone, facts=[facts | {"statuses": {"ok": 30, "not_sent": 170}}])
    unsent = "170 more were scheduled but never sent."
    assert parts(stopped)["Measured"].endswith(f"30 measured requests, none failed; {unsent}")


def test_a_trial_that_broke_off_says_why(alone: ReportData) -> None:
    """Though the reason is its own and not its cell's."""
    (cell,) = alone.manifest.cells
    trial = again(cell.trials[0], status="failed", reason="the engine ended")
    cell = again(cell, status="failed", reason=None, trials=[trial])
    told = parts(replace(alone, manifest=again(alone.manifest, cells=[cell])))
    assert told["Not measured"] == "1 incomplete or skipped; the first: the engine ended."


def test_memory_of_a_server_that_nobody_here_started_is_not_known(alone: ReportData) -> None:
    """That is the reason, not that readings are lacking; of a run that tells of no engine it is the readings."""
    info = {"name": "http", "pids": []}
    (facts,) = one_trial(limits=["error_rate <= 0.1"], engine_info=info).facts
    assert facts["missing"]["rss_peak_bytes"].startswith("the engine's processes are not known")
    assert alone.facts[0]["missing"]["rss_peak_bytes"].startswith("no reading was taken")


def test_a_single_trial_is_told_with_its_intervals(alone: ReportData) -> None:
    """Throughput, time to first token and time per token."""
    speed = parts(alone)["Speed"]
    assert "400.1 output tokens/s (399.2 to 401.1)" in speed
    assert "time to first token p50 80.0" in speed
    assert "p95 117" in speed
    assert "time per token p50 12.0" in speed


def test_many_trials_are_told_by_their_ends(full: ReportData) -> None:
    """From the lowest to the highest, named by what tells the trials apart, those known roughly, too."""
    speed = parts(full)["Speed"]
    assert speed.startswith("output tokens/s from 320 (q4 · sustained")
    assert "to 400.1 (f16 · sustained; 399.2 to 401.1)" in speed
    assert "known as a bound" not in speed


def test_limits_that_hold_are_said_to_hold(alone: ReportData) -> None:
    """One, all, or none at all."""
    assert parts(alone)["Limits"] == "the only one is met."
    assert parts(replace(alone, verdicts=[*alone.verdicts] * 3))["Limits"] == "all 3 are met."
    assert parts(replace(alone, verdicts=[]))["Limits"] == "none was set."


def test_a_broken_limit_is_named(full: ReportData) -> None:
    """How many of each kind, and the first that is broken, with what was seen."""
    said = parts(full)["Limits"]
    assert said.startswith("2 violated, 5 undecided and 2 met of 9; violated: ttft_ms p95 <= 150 under q4 · sustained")
    assert said.endswith("168.1 ms.")


def test_the_weightiest_caveat_comes_with_advice(alone: ReportData) -> None:
    """What invalidates goes before what only warns, the frequent before the rare; without a reason, that is said."""
    weak = {"code": "a", "level": "warn", "sentence": "It is warm.", "advice": "Cool it."}
    bad = {"code": "b", "level": "invalid", "sentence": "Requests were late", "advice": "Lower the rate"}
    where = {"cell": alone.validity[0]["cell"], "trial": alone.validity[0]["trial"]}

    def caveat(*reasons: dict[str, str]) -> str:
        judged = [where | {"verdict": "warn", "reasons": list(reasons)}]
        return parts(replace(alone, validity=judged))["Caveats"]

    assert caveat(weak, weak, bad) == "poor data in 1 of 1 trial: Requests were late. Lower the rate."
    assert caveat(weak) == "in 1 of 1 trial: It is warm. Cool it."
    assert caveat() == "none."


def test_no_number_of_an_invalid_trial_is_told(alone: ReportData) -> None:
    """It has no result."""
    judged = [one | {"verdict": "invalid"} for one in alone.validity]
    assert "Speed" not in parts(replace(alone, validity=judged))


def test_what_is_missing_is_counted_with_a_reason(full: ReportData, alone: ReportData) -> None:
    """Cells that were skipped and trials that broke off."""
    assert parts(full)["Not measured"] == "2 incomplete or skipped; the first: the engine exited with signal 9."
    assert "Not measured" not in parts(alone)


def test_a_run_without_measurements_has_an_answer(full: ReportData) -> None:
    """Nothing planned, or nothing measured."""
    empty = replace(full, manifest=again(full.manifest, cells=[]), facts=[], validity=[], verdicts=[], decisions=[])
    assert parts(empty)["Measured"] == "Nothing was planned."
    assert parts(replace(full, facts=[], decisions=[]))["Measured"] == "No trial has a measurement."


def test_an_engine_without_a_model_is_named_first(alone: ReportData) -> None:
    """A server that runs already may not say what it serves."""
    cells = [again(cell, model=None) for cell in alone.manifest.cells]
    shown = replace(alone, manifest=again(alone.manifest, cells=cells))
    assert parts(shown)["Measured"].startswith("simulated (1.2) at f16, under sustained")


def test_gpus_are_counted_by_name(alone: ReportData) -> None:
    """Two of a kind are one name."""
    provenance = {"must_match": {"cpu": "Example 9000", "cores": 8, "gpus": ["A100", "A100", "L4"]}}
    shown = replace(alone, manifest=again(alone.manifest, provenance=provenance))
    assert "on 2 x A100 and L4 and Example 9000 with 8 cores" in parts(shown)["Measured"]


def test_a_choice_is_told(full: ReportData) -> None:
    """What to run, where rows were compared."""
    assert parts(full)["Decision"].startswith("None qualifies")
    assert "Decision" not in parts(one_trial(limits=LIMITS[:1]))


def test_trials_that_were_as_fast_are_told_once() -> None:
    """Numbers that show the same are not told as a range."""
    cells = [cell_entry(level=level, id=f"00{number}") for number, level in enumerate(("f16", "q4"))]
    cells.append(cell_entry(level="q8", id="002"))
    trials = [FabricatedTrial(cell, trial_entry(), noisy(1)) for cell in cells]
    run = manifest([again(one.cell, trials=[one.trial]) for one in trials])
    speed = parts(report_data(derive(run, trials)))["Speed"]
    assert "output tokens/s 400.1 in each" in speed
    assert "from" not in speed
