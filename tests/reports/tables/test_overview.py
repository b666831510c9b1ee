"""The results table as plain data: signs, units, and which numbers stand in it."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reports.data import ReportData
from reports.names import load_names
from reports.tables.overview import Overview, _interval, _number, foot_of, overview
from tests.fabricated import again, cell_entry, trial_entry
from tests.reports.conftest import manifest


def texts(found: Overview, head: str, over: str = "") -> list[str]:
    """The texts of a column."""
    (number,) = (i for i, one in enumerate(found.figures) if one.head == head and over in ("", one.over))
    return [line.cells[number].text for line in found.lines]


def with_columns(data: ReportData, *columns: str) -> ReportData:
    """The run as if the scenario had chosen columns."""
    scenario = data.manifest.scenario | {"columns": list(columns)}
    return replace(data, manifest=again(data.manifest, scenario=scenario))


@given(st.lists(st.floats(1e-3, 1e6), min_size=2, max_size=2))
def test_the_order_of_printed_numbers_is_that_of_the_numbers(pair: list[float]) -> None:
    """25.8 and 27.2 are not printed as 30 and 27."""
    low, high = (float(_number(value, "time").replace("\u202f", "")) for value in sorted(pair))
    assert low <= high


@given(st.floats(1e-3, 1e6))
def test_a_printed_number_has_two_digits_at_least(value: float) -> None:
    """It is within half a percent of the number."""
    assert float(_number(value, "time").replace("\u202f", "")) == pytest.approx(value, rel=0.0051)


def test_a_share_below_one_is_not_printed_as_all() -> None:
    """Nor is a number of nearly nothing printed as nothing."""
    assert _number(0.99999, "share") == "99.9\u202f%"
    assert _number(1.0, "share") == "100\u202f%"
    assert _number(8e-5, "number") == "<0.00100"


def test_an_open_interval_has_no_text() -> None:
    """The sign behind the value says that it is open; one of two ends has the digits of the value, or more."""
    assert _interval(53.44, 52.06, 55.03, "time") == "52.1 to 55.0"
    assert _interval(9.9996, 9.9961, 10.0041, "time") == "9.996 to 10.004"
    assert _interval(53.4, 53.40000001, 53.40000002, "time") == _interval(1e-7, 1e-8, 1e-6, "time") == ""
    assert _interval(53.4, 52.1, float("inf"), "time") == _interval(53.4, float("nan"), 60.0, "time") == ""


def test_a_caveat_marks_the_numbers_that_it_names(sweep: ReportData) -> None:
    """A doubtful one has a star, one that is not reliable brackets; the others stay bare."""
    found = overview(sweep)
    assert texts(found, "tok/s", "output")[:2] == ["(40.0)", "80.1"]
    assert texts(found, "p50", "TPOT")[0] == "(12.1)"
    assert [text.endswith("*") for text in texts(found, "p95", "TTFT")] == [False, False, True, True]


def test_only_signs_that_are_shown_are_explained(sweep: ReportData) -> None:
    """A column that is left out for want of room needs no footnote."""
    found = overview(sweep)
    every = [cell for line in found.lines for cell in line.cells]
    assert [sign for sign, _ in foot_of(found, every)] == ["~", "*", "( )"]
    assert [sign for sign, _ in foot_of(found, (one for one in every if "~" not in one.text))] == ["*", "( )"]
    assert foot_of(found, ()) == []


def test_a_repetition_that_left_nothing_spoils_no_number(sweep: ReportData) -> None:
    """It failed; the numbers are those of the others, whose data is good."""
    (cell,) = sweep.manifest.cells
    second = again(cell, id="again", repetition=2)
    poor = {"level": "invalid", "code": "load_missing", "sentence": "It never ran."}
    good = [one | {"verdict": "valid", "reasons": []} for one in sweep.validity]
    bad = [one | {"cell": "again", "verdict": "invalid", "reasons": [poor]} for one in sweep.validity]
    run = replace(sweep, manifest=again(sweep.manifest, cells=[cell, second]), validity=[*good, *bad])
    assert not any("(" in one.text for line in overview(run).lines for one in line.cells)
    assert [run.verdict_of(line.keys) for line in overview(run).lines] == ["valid"] * 4


def test_a_bound_is_marked_like_a_number(sweep: ReportData) -> None:
    """Where requests never ended and the data is poor, it stands in brackets with the reason."""
    summary = sweep.summary.copy()
    hidden = (summary["metric"] == "ttft_ms") & (summary["statistic"] == "p95")
    summary.loc[hidden, ["value", "low", "high"]] = [float("nan"), 30_000.0, float("inf")]
    poor = {"level": "invalid", "code": "errors", "sentence": "Most failed.", "metrics": ["ttft_ms"]}
    spoiled = [one | {"verdict": "invalid", "reasons": [poor]} for one in sweep.validity]
    cell = overview(replace(sweep, summary=summary, validity=spoiled)).lines[0].cells
    assert [(one.text, one.why) for one in cell if ">" in one.text] == [("(>\u202f30\u202f000)", "Most failed.")]


def test_a_number_known_from_above_only_is_shown_as_such(sweep: ReportData) -> None:
    """As the cost of tokens of which some were not counted."""
    summary = sweep.summary.copy()
    hidden = (summary["metric"] == "ttft_ms") & (summary["statistic"] == "p95")
    summary.loc[hidden, ["value", "low", "high"]] = [float("nan"), float("nan"), 30_000.0]
    summary.loc[hidden, "bound"] = "upper"
    assert texts(overview(replace(sweep, summary=summary)), "p95", "TTFT")[0] == "<\u202f30\u202f000"


def test_no_number_is_hidden_because_the_load_failed(full: ReportData) -> None:
    """All of its row stand in brackets, but what no load can spoil."""
    failed = {"level": "invalid", "code": "errors", "sentence": "All failed."}
    spoiled = [one | {"verdict": "invalid", "reasons": [failed]} for one in full.validity]
    found = overview(replace(full, validity=spoiled))
    assert texts(found, "p50", "TTFT")[0] == "(80.0)"
    assert texts(found, "peak", "memory")[0] == "1.96\u202fGiB"
    assert texts(found, "asked")[0] == "10.0"


def test_what_is_asked_is_the_planned_rate(sweep: ReportData) -> None:
    """Users who wait ask for none."""
    assert texts(overview(sweep), "asked") == ["1.00", "2.00", "4.00", "8.00"]


def test_users_have_a_column_of_their_own(single: ReportData, sweep: ReportData) -> None:
    """Only where there are any."""
    assert texts(overview(single), "users") == ["1"]
    assert not [one for one in overview(single).figures if one.head == "asked"]
    assert not [one for one in overview(sweep).figures if one.head == "users"]


def test_a_cap_stands_beside_the_rate(sweep: ReportData) -> None:
    """Only where there is one."""
    assert not [one for one in overview(sweep).figures if one.head == "cap"]
    (cell,) = sweep.manifest.cells
    trials = [again(one, max_concurrency=16 if one is cell.trials[0] else None) for one in cell.trials]
    capped = replace(sweep, manifest=again(sweep.manifest, cells=[again(cell, trials=trials).stored()]))
    found = overview(capped)
    assert texts(found, "cap", "in flight") == ["16", "", "", ""]
    assert [one.head for one in found.figures][:3] == ["asked", "done", "cap"]


def test_the_head_of_a_latency_says_where_it_begins(sweep: ReportData) -> None:
    """Where all loads have the same origin."""
    found = overview(sweep)
    units = {(one.over, one.head): unit for one, unit in zip(found.figures, found.units, strict=True)}
    assert units["TTFT", "p95"] == "ms (from due)"
    assert units["E2E", "p95"] == "ms"


def test_several_origins_stand_in_the_foot(sweep: ReportData) -> None:
    """With the loads that have them."""
    facts = [one | {"origin": "from sent"} if number == 3 else one for number, one in enumerate(sweep.facts)]
    found = overview(replace(sweep, facts=facts))
    assert found.foot[-1] == ("TTFT, E2E", "count 1/s, 2/s and 4/s from due; 8/s from sent")
    assert "ms (from due)" not in found.units


def test_times_of_more_than_a_second_are_shown_in_seconds(sweep: ReportData) -> None:
    """All of a group in one unit."""
    summary = sweep.summary.copy()
    times = summary["metric"] == "e2e_ms"
    summary.loc[times, ["value", "low", "high"]] *= 10
    found = overview(replace(sweep, summary=summary))
    units = {(one.over, unit) for one, unit in zip(found.figures, found.units, strict=True)}
    assert ("E2E", "s") in units
    assert texts(found, "p50", "E2E")[0] == "5.48"


def test_the_configurations_are_named_by_what_differs(full: ReportData, sweep: ReportData) -> None:
    """A sweep of rates by its rates alone."""
    assert overview(full).heads == ("quantization", "load")
    assert overview(sweep).heads == ("load",)
    assert [line.place for line in overview(sweep).lines] == [("1/s",), ("2/s",), ("4/s",), ("8/s",)]


def test_a_line_has_the_worst_outcome_of_its_limits(full: ReportData) -> None:
    """Or what became of a trial that is not complete."""
    assert [line.mark.text for line in overview(full).lines] == ["", "", "✗", "failed"]


def test_columns_are_chosen_by_family_metric_or_statistic(sweep: ReportData) -> None:
    """In the order of the choice; a number that the table has no name for is shown by its metric."""
    found = overview(with_columns(sweep, "ttft_ms p99", "tokens", "send_lag_ms p99", "nonsense"))
    assert [one.key for one in found.figures] == [
        ("ttft_ms", "p99"),
        ("output_tokens_per_s", "value"),
        ("input_tokens_per_s", "value"),
        ("total_tokens_per_s", "value"),
        ("send_lag_ms", "p99"),
    ]
    assert found.chosen
    largest = overview(with_columns(sweep, "icl_ms max"))
    assert not any("~" in line.cells[0].text for line in largest.lines)


def test_loads_are_named_after_their_rate_or_users() -> None:
    """One of them is no plural."""
    loads = ("sustained-users-1", "sustained-users-4", "sustained-rate-2.5", "mixed-rate-2-cap-16", "burst")
    cell = again(cell_entry(), trials=[trial_entry(id=name, load=name) for name in loads])
    data = ReportData("run", manifest([cell]), pd.DataFrame())
    assert list(load_names(data).values()) == ["1 user", "4 users", "2.5/s", "2/s, cap 16", "burst"]


def test_a_distribution_without_a_statistic_has_its_median_and_p95(sweep: ReportData) -> None:
    """Under the name that the table has for the metric, which is without its unit."""
    found = overview(with_columns(sweep, "send_lag_ms", "tpot_ms p99"))
    assert [(one.over, one.head, one.key) for one in found.figures] == [
        ("send_lag", "p50", ("send_lag_ms", "p50")),
        ("send_lag", "p95", ("send_lag_ms", "p95")),
        ("TPOT", "p99", ("tpot_ms", "p99")),
    ]
